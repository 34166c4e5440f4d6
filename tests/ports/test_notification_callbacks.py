"""Vendors' callbacks: signed ones count once and settle their delivery; forged, old and repeated ones are refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import pytest

from payflow.contracts.callbacks import (
    CallbackNotSigned,
    CallbackReplayed,
    Callbacks,
    CallbackTaken,
    UnreadableCallback,
    Vendor,
    VendorCallback,
    VendorNotInUse,
)
from payflow.contracts.notification import MessageAccepted
from payflow.platform.crypto import ColumnCipher
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.notification.channel_api import CallbacksApi
from payflow.services.notification.channels.sendgrid_callbacks import SendGridCallbacks, read_public_key
from payflow.services.notification.channels.twilio_callbacks import TwilioCallbacks
from payflow.services.notification.domain import Sent, TemporaryFailure
from payflow_dev.vendors.desk import Taken
from payflow_dev.vendors.sendgrid import SendGridServer
from payflow_dev.vendors.twilio import TwilioServer, sign
from tests.builders import FixedClock, new_id
from tests.builders_notification import World, in_memory, over_postgres
from tests.fakes_notification import FakeChannel

PUBLIC_URL = "https://pay.example.org"


class Vendors:
    """A world whose SMS and e-mail are with vendors that call back."""

    def __init__(self, world: World) -> None:
        self.world = world
        world.clock = FixedClock(datetime.now(UTC).replace(microsecond=0))
        self.sms, self.email = FakeChannel("sms"), FakeChannel("email")
        self.twilio, self.sendgrid = TwilioServer(), SendGridServer()
        account = self.twilio.account
        readers = {
            Vendor.TWILIO: TwilioCallbacks(
                public_url=PUBLIC_URL, account_sid=account.sid, auth_token=account.auth_token, channel="sms"
            ),
            Vendor.SENDGRID: SendGridCallbacks(public_key=read_public_key(self.sendgrid.public_key), channel="email"),
        }
        self.api: Callbacks = in_process(
            Callbacks, CallbacksApi(readers=readers, store=world.store, clock=world.clock), caller="gateway"
        )

    async def a_sent_message(self, channel: str, *, ways: list[FakeChannel] | None = None) -> UUID:
        """A message that a vendor has taken; its id."""
        first = {"sms": self.sms, "email": self.email}[channel]
        for each in (self.sms, self.email):
            each.answer = lambda message: Sent(f"SM{message.message_id.hex}")
        self.world.use(*(ways or [first]))
        await self.world.hear(self.world.an_event())
        await self.world.api.deliver_due()
        return first.sent[-1].message_id

    def by_twilio(self, message_id: UUID, status: str, **changes: str) -> VendorCallback:
        query = urlencode({"message_id": str(message_id)})
        taken = self.taken(f"SM{message_id.hex}")
        url = f"{PUBLIC_URL}/callbacks/twilio?{query}"
        body, headers = self.twilio.callback(url, taken, status, **changes)
        signature = headers["X-Twilio-Signature"]
        return VendorCallback(vendor=Vendor.TWILIO, query=query, signature=signature, timestamp="", body=body)

    def by_sendgrid(self, *events: dict[str, Any], at: datetime | None = None) -> VendorCallback:
        instant = at or self.world.clock.now()
        body, headers = self.sendgrid.callback(list(events), at=int(instant.timestamp()))
        return VendorCallback(
            vendor=Vendor.SENDGRID,
            query="",
            signature=headers["X-Twilio-Email-Event-Webhook-Signature"],
            timestamp=headers["X-Twilio-Email-Event-Webhook-Timestamp"],
            body=body,
        )

    def event(self, message_id: UUID, event: str, **fields: Any) -> dict[str, Any]:
        return self.sendgrid.event(self.taken("mail-1", message_id), event, **fields)

    def taken(self, reference: str, message_id: UUID | None = None) -> Taken:
        arguments = {"payflow_message_id": str(message_id)} if message_id else {}
        return Taken(
            recipient="+31205550100",
            subject="",
            text="",
            reference=reference,
            taken_at=datetime.now(UTC),
            fields={"From": "+15005550006", "headers": {}, "categories": [], "custom_args": arguments},
        )

    async def take(self, *callbacks: VendorCallback) -> list[Any]:
        return list(await self.api.take_callbacks(list(callbacks)))

    async def state(self) -> tuple[str, str | None]:
        view = (await self.world.messages())[0]
        return view.state, view.reason


@pytest.fixture(params=["memory", "postgres"])
async def vendors(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> AsyncIterator[Vendors]:
    if request.param == "memory":
        yield Vendors(in_memory())
    else:
        yield Vendors(await over_postgres(await connect_as("notification"), cipher))


TAKEN = CallbackTaken(stored=1, foreign=0)


async def test_what_twilio_tells_settles_the_delivery_once(vendors: Vendors) -> None:
    message_id = await vendors.a_sent_message("sms")

    sent = await vendors.take(vendors.by_twilio(message_id, "sent"))
    delivered = await vendors.take(vendors.by_twilio(message_id, "delivered"))
    late = await vendors.take(vendors.by_twilio(message_id, "sending"), vendors.by_twilio(message_id, "failed"))

    (view,) = await vendors.world.messages()
    assert [*sent, *delivered, *late] == [TAKEN] * 4
    assert (view.state, view.delivered_at, view.reason) == ("DELIVERED", vendors.world.clock.now(), None)


async def test_an_sms_that_did_not_arrive_goes_the_next_way(vendors: Vendors) -> None:
    message_id = await vendors.a_sent_message("sms", ways=[vendors.sms, vendors.email])

    await vendors.take(vendors.by_twilio(message_id, "undelivered"))
    await vendors.world.api.deliver_due()

    views = await vendors.world.messages()
    assert [(view.channel, view.state, view.reason) for view in views] == [
        ("sms", "FAILED", "TWILIO_30003"),
        ("email", "SENT", None),
    ]
    assert [message.message_id for message in vendors.email.sent] == [message_id]


async def test_a_code_that_did_not_arrive_goes_the_next_way_when_it_is_asked_for_again(vendors: Vendors) -> None:
    vendors.sms.answer = lambda message: Sent(f"SM{message.message_id.hex}")
    vendors.world.use(vendors.sms, vendors.email)
    command = vendors.world.a_code("111111")
    await vendors.world.otp.send_otp_codes([command])
    before = await vendors.world.otp.send_otp_codes([command])
    await vendors.take(vendors.by_twilio(vendors.sms.sent[-1].message_id, "undelivered"))

    after = await vendors.world.otp.send_otp_codes([command])

    assert [answer.channel for answer in (*before, *after) if isinstance(answer, MessageAccepted)] == ["sms", "email"]
    assert [message.code for message in vendors.email.sent] == ["111111"]


async def test_a_callback_settles_a_message_whose_answer_was_lost_and_it_is_not_sent_again(vendors: Vendors) -> None:
    vendors.sms.answer = lambda _: TemporaryFailure("NO_ANSWER", is_outage=True, is_unanswered=True)
    vendors.world.use(vendors.sms)
    await vendors.world.hear(vendors.world.an_event())
    await vendors.world.api.deliver_due()
    message_id = vendors.sms.sent[-1].message_id

    taken = await vendors.take(vendors.by_twilio(message_id, "queued"))
    vendors.world.clock.move(timedelta(minutes=5))
    await vendors.world.api.deliver_due()

    assert taken == [TAKEN]
    assert await vendors.state() == ("SENT", None)
    assert len(vendors.sms.sent) == 1


async def test_a_callback_that_comes_again_is_refused(vendors: Vendors) -> None:
    message_id = await vendors.a_sent_message("sms")
    callback = vendors.by_twilio(message_id, "delivered")

    first = await vendors.take(callback, callback)
    again = await vendors.take(callback)

    assert [type(answer) for answer in [*first, *again]] == [CallbackTaken, CallbackReplayed, CallbackReplayed]


def forgeries(vendors: Vendors, message_id: UUID) -> dict[str, VendorCallback]:
    from msgspec.structs import replace

    good = vendors.by_twilio(message_id, "failed")
    other_query = urlencode({"message_id": str(new_id())})
    form = {"MessageSid": "SM1", "MessageStatus": "failed", "AccountSid": vendors.twilio.account.sid}
    url = f"{PUBLIC_URL}/callbacks/twilio?{good.query}"
    return {
        "no signature": replace(good, signature=""),
        "not base64": replace(good, signature="é%%"),
        "another signature": replace(good, signature=vendors.by_twilio(message_id, "sent").signature),
        "another body": replace(good, body=good.body.replace(b"failed", b"delivered")),
        "another parameter": replace(good, body=good.body + b"&Extra=1"),
        "a parameter twice": replace(good, body=good.body + b"&MessageStatus=failed"),
        "another message": replace(good, query=other_query),
        "no message": replace(good, query=""),
        "another key": replace(good, body=urlencode(form).encode(), signature=sign(url, form, auth_token="guessed")),
        "no form": replace(good, body=b"\xff\xfe"),
        "empty": replace(good, body=b""),
    }


FORGERIES = [
    "no signature",
    "not base64",
    "another signature",
    "another body",
    "another parameter",
    "a parameter twice",
    "another message",
    "no message",
    "another key",
    "no form",
    "empty",
]


@pytest.mark.parametrize("forgery", FORGERIES)
async def test_a_forged_callback_of_twilios_changes_nothing(vendors: Vendors, forgery: str) -> None:
    message_id = await vendors.a_sent_message("sms")

    answers = await vendors.take(forgeries(vendors, message_id)[forgery])

    assert [type(answer) for answer in answers] == [CallbackNotSigned]
    assert await vendors.state() == ("SENT", None)


async def test_a_signed_callback_of_another_account_or_without_a_status_is_not_read(vendors: Vendors) -> None:
    message_id = await vendors.a_sent_message("sms")

    answers = await vendors.take(
        vendors.by_twilio(message_id, "delivered", AccountSid="AC0"),
        vendors.by_twilio(message_id, "DROP TABLE"),
        vendors.by_twilio(message_id, "delivered", MessageSid=""),
    )

    assert [type(answer) for answer in answers] == [UnreadableCallback] * 3
    assert await vendors.state() == ("SENT", None)


async def test_words_about_messages_that_are_not_ours_are_dropped(vendors: Vendors) -> None:
    await vendors.a_sent_message("sms")

    (unknown,) = await vendors.take(vendors.by_twilio(new_id(), "delivered"))
    (mixed,) = await vendors.take(
        vendors.by_sendgrid(vendors.event(new_id(), "delivered"), {"event": "delivered", "sg_event_id": "x"})
    )

    assert unknown == CallbackTaken(stored=0, foreign=1)
    assert mixed == CallbackTaken(stored=0, foreign=1)
    assert await vendors.state() == ("SENT", None)


async def test_what_sendgrid_tells_settles_the_delivery(vendors: Vendors) -> None:
    message_id = await vendors.a_sent_message("email")
    events = [vendors.event(message_id, name) for name in ("processed", "deferred", "delivered", "open", "click")]

    (answer,) = await vendors.take(vendors.by_sendgrid(*events))

    assert answer == CallbackTaken(stored=3, foreign=0)
    assert await vendors.state() == ("DELIVERED", None)


@pytest.mark.parametrize("event", ["bounce", "dropped"])
async def test_a_mail_that_bounced_has_failed(vendors: Vendors, event: str) -> None:
    message_id = await vendors.a_sent_message("email")

    await vendors.take(vendors.by_sendgrid(vendors.event(message_id, event, reason="550 <ada@example.org> unknown")))

    assert await vendors.state() == ("FAILED", f"SENDGRID_{event.upper()}")


async def test_events_that_come_again_are_refused_and_new_ones_beside_them_count(vendors: Vendors) -> None:
    message_id = await vendors.a_sent_message("email")
    processed, delivered = (vendors.event(message_id, name) for name in ("processed", "delivered"))
    callback = vendors.by_sendgrid(processed)

    first = await vendors.take(callback)
    again = await vendors.take(callback, vendors.by_sendgrid(processed))
    beside = await vendors.take(vendors.by_sendgrid(processed, delivered))

    assert [type(answer) for answer in [*first, *again]] == [CallbackTaken, CallbackReplayed, CallbackReplayed]
    assert beside == [TAKEN]
    assert await vendors.state() == ("DELIVERED", None)


@pytest.mark.parametrize("age", [timedelta(minutes=6), timedelta(minutes=-6), timedelta(days=1)])
async def test_a_call_that_was_signed_long_ago_or_later_is_refused(vendors: Vendors, age: timedelta) -> None:
    message_id = await vendors.a_sent_message("email")
    event = vendors.event(message_id, "bounce")

    answers = await vendors.take(vendors.by_sendgrid(event, at=vendors.world.clock.now() - age))

    assert [type(answer) for answer in answers] == [CallbackNotSigned]
    assert await vendors.state() == ("SENT", None)


@pytest.mark.parametrize("what", ["signature", "timestamp", "body", "key"])
async def test_a_forged_call_of_sendgrids_changes_nothing(vendors: Vendors, what: str) -> None:
    from msgspec.structs import replace

    message_id = await vendors.a_sent_message("email")
    good = vendors.by_sendgrid(vendors.event(message_id, "bounce"))
    stranger = Vendors(vendors.world)
    forged = {
        "signature": replace(good, signature="AAAA"),
        "timestamp": replace(good, timestamp=str(int(good.timestamp) + 1)),
        "body": replace(good, body=good.body.replace(b"bounce", b"dropped")),
        "key": stranger.by_sendgrid(vendors.event(message_id, "bounce")),
    }[what]

    answers = await vendors.take(forged)

    assert [type(answer) for answer in answers] == [CallbackNotSigned]
    assert await vendors.state() == ("SENT", None)


async def test_a_signed_call_that_is_no_list_of_events_is_not_read(vendors: Vendors) -> None:
    import base64

    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.hashes import SHA256

    timestamp, body = str(int(vendors.world.clock.now().timestamp())), b'{"event": "delivered"}'
    signature = vendors.sendgrid._key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
    callback = VendorCallback(
        vendor=Vendor.SENDGRID,
        query="",
        signature=base64.b64encode(signature).decode(),
        timestamp=timestamp,
        body=body,
    )

    assert [type(answer) for answer in await vendors.take(callback)] == [UnreadableCallback]


async def test_a_vendor_that_is_not_in_use_is_not_listened_to(vendors: Vendors) -> None:
    message_id = await vendors.a_sent_message("sms")
    api = in_process(
        Callbacks, CallbacksApi(readers={}, store=vendors.world.store, clock=vendors.world.clock), caller="gateway"
    )

    answers = await api.take_callbacks([vendors.by_twilio(message_id, "delivered")])

    assert [type(answer) for answer in answers] == [VendorNotInUse]
