"""Channels with their vendors' stand-ins, one shape for all of them, so that one suite holds every channel."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, ClassVar

from payflow.services.notification.channels.fcm import FcmPush, ServiceAccount
from payflow.services.notification.channels.http import HttpCaller
from payflow.services.notification.channels.sendgrid import EmailSender, SendGridMail
from payflow.services.notification.channels.settings import tls_context
from payflow.services.notification.channels.smtp import SmtpMail, SmtpServer
from payflow.services.notification.channels.twilio import TwilioSettings, TwilioSms
from payflow.services.notification.channels.vendor import Vendor, VendorChannel
from payflow.services.notification.domain import (
    NO_ANSWER,
    NOT_REACHED,
    UNREADABLE_ANSWER,
    Contact,
    Device,
    Kind,
    Outgoing,
    PermanentFailure,
    SendResult,
    Sent,
    TemporaryFailure,
)
from payflow_dev.vendors import fcm, sendgrid, smtp, twilio
from payflow_dev.vendors.desk import Desk, Mood, Taken
from tests.builders import new_id
from tests.fakes_notification import FakeDevices

# Of channels in tests that are not about time: a busy machine takes its own.
PATIENT_S = 5.0
SENDER = EmailSender(address="no-reply@payflow.example", name="Payflow Bank")


def customer_of(place: str) -> str:
    """Whose place it is: an id that does not name it."""
    return f"cust_{sha256(place.encode()).hexdigest()[:16]}"


class WallClock:
    """Tokens and signatures of the vendors' stand-ins are about the real time."""

    def now(self) -> datetime:
        return datetime.now(UTC)


class Rig(ABC):
    """A channel, the stand-in behind it, and customers of each kind."""

    name: str
    good: str
    other: str
    refused: str

    def __init__(self) -> None:
        self.clock = WallClock()
        self.channel = self.a_channel()

    @property
    @abstractmethod
    def desk(self) -> Desk:
        """The stand-in's."""

    @abstractmethod
    def vendor(self) -> Vendor:
        """The adapter."""

    @abstractmethod
    async def hang_up(self) -> None:
        """Stop listening."""

    @abstractmethod
    async def listen_again(self) -> None:
        """Listen, where it listened before if it did."""

    def a_channel(self, *, timeout_s: float = PATIENT_S) -> Any:
        """The channel, as a process that has just started has it."""
        return VendorChannel(name=self.name, vendor=self.vendor(), carries_codes=True, timeout_s=timeout_s, calls_max=8)

    def contact(self, place: str) -> Contact:
        """Whom the message is for, as the channel is told."""
        return Contact(name="Ada Lovelace", email=place, phone=place)

    async def settle(self, place: str) -> None:
        """Have known of a customer whatever must be before the message: nothing, unless a channel keeps a book."""
        return

    async def a_message(self, place: str = "", *, code: str | None = None, **changes: Any) -> Outgoing:
        """A message to the customer at this place."""
        place = place or self.good
        await self.settle(place)
        message = Outgoing(
            message_id=new_id(),
            customer_id=customer_of(place),
            kind=Kind.OTP_CODE if code else Kind.PAYMENT_COMPLETED,
            subject="Payment txn_001 was made",
            short=f"SHORT {code or 'payment txn_001'}",
            body=f"BODY {code or 'payment txn_001'}\n.a line with a dot\nÄ €",
            channel=self.name,
            tries=1,
            created_at=self.clock.now(),
            code=code,
            expires_at=self.clock.now() + timedelta(minutes=5) if code else None,
            contact=self.contact(place) if self.channel.needs_contact else None,
        )
        return replace(message, **changes)

    async def send(self, *messages: Outgoing, within_s: float | None = None) -> list[SendResult]:
        return list(await self.channel.send(messages, within_s=within_s))

    @property
    def taken(self) -> list[Taken]:
        return self.desk.taken

    @property
    def secrets(self) -> list[str]:
        """What no log and no error may name besides the message's own."""
        return []


class TwilioRig(Rig):
    name = "sms"
    good, other, refused = "+31205550100", "+31205550101", "+15005550004"
    reasons: ClassVar = {
        "refused": "TWILIO_21610",
        "busy": "TWILIO_20429",
        "out": "TWILIO_20503",
        "locked": "TWILIO_20003",
    }

    def __init__(self) -> None:
        self.server = twilio.TwilioServer()
        self.http = HttpCaller()
        super().__init__()

    @property
    def desk(self) -> Desk:
        return self.server.desk

    def vendor(self) -> Vendor:
        account = self.server.account
        settings = TwilioSettings(
            url=self.server.url,
            account_sid=account.sid,
            key_sid=account.key_sid,
            key_secret=account.key_secret,
            sender=twilio.OWN_NUMBER,
        )
        return TwilioSms(settings=settings, http=self.http, clock=self.clock)

    async def hang_up(self) -> None:
        await self.server.stop()

    async def listen_again(self) -> None:
        await self.server.start()

    @property
    def secrets(self) -> list[str]:
        return [self.server.account.key_secret, self.server.account.auth_token]


class SendGridRig(Rig):
    name = "email"
    good, other, refused = "ada@example.org", "alan@example.org", "no-domain@x"
    reasons: ClassVar = {
        "refused": "SENDGRID_HTTP_400",
        "busy": "SENDGRID_HTTP_429",
        "out": "SENDGRID_HTTP_503",
        "locked": "SENDGRID_HTTP_401",
    }

    def __init__(self) -> None:
        self.server = sendgrid.SendGridServer(sender=SENDER.address)
        self.http = HttpCaller()
        super().__init__()

    @property
    def desk(self) -> Desk:
        return self.server.desk

    def vendor(self) -> Vendor:
        server = self.server
        return SendGridMail(url=server.url, api_key=server.api_key, sender=SENDER, http=self.http, clock=self.clock)

    async def hang_up(self) -> None:
        await self.server.stop()

    async def listen_again(self) -> None:
        await self.server.start()

    @property
    def secrets(self) -> list[str]:
        return [self.server.api_key]


class SmtpRig(Rig):
    name = "email"
    good, other, refused = "ada@example.org", "alan@example.org", smtp.NOBODY
    reasons: ClassVar = {
        "refused": "SMTP_550_RCPT",
        "busy": "SMTP_452_RCPT",
        "out": "SMTP_421_CONNECT",
        "locked": "SMTP_535_CONNECT",
    }

    def __init__(self, *, is_implicit: bool) -> None:
        self.server = smtp.SmtpServer(is_implicit=is_implicit)
        self.is_implicit = is_implicit
        self.mails: list[SmtpMail] = []
        super().__init__()

    @property
    def desk(self) -> Desk:
        return self.server.desk

    def vendor(self) -> Vendor:
        server = SmtpServer(
            host="127.0.0.1",
            port=self.server.port,
            tls="implicit" if self.is_implicit else "starttls",
            username=smtp.USERNAME,
            password=self.server.password,
            context=tls_context(self.server.certificate.certificate),
        )
        self.mails.append(SmtpMail(server=server, sender=SENDER, clock=self.clock))
        return self.mails[-1]

    async def hang_up(self) -> None:
        await self.server.stop()

    async def listen_again(self) -> None:
        await self.server.start()

    @property
    def secrets(self) -> list[str]:
        return [self.server.password]


class FcmRig(Rig):
    name = "push"
    good, other, refused = "token-of-adas-phone", "token-of-alans-phone", f"{fcm.GONE}token"
    reasons: ClassVar = {
        "refused": "FCM_UNREGISTERED",
        "busy": "FCM_QUOTA_EXCEEDED",
        "out": "FCM_UNAVAILABLE",
        "locked": "FCM_PERMISSION_DENIED",
    }

    def __init__(self) -> None:
        self.server = fcm.FcmServer()
        self.http = HttpCaller()
        self.devices = FakeDevices()
        super().__init__()

    @property
    def desk(self) -> Desk:
        return self.server.desk

    def vendor(self) -> Vendor:
        account = ServiceAccount.read(self.server.service_account)
        return FcmPush(url=self.server.url, account=account, devices=self.devices, http=self.http, clock=self.clock)

    async def settle(self, place: str) -> None:
        await self.a_device(customer_of(place), place)

    async def a_device(self, customer_id: str, token: str) -> Device:
        now = self.clock.now()
        device = Device(new_id(), customer_id, "android", token, now, now)
        await self.devices.register([device])
        return device

    async def hang_up(self) -> None:
        await self.server.stop()

    async def listen_again(self) -> None:
        await self.server.start()


class FakeVendor:
    """The fake behind the use cases' tests, held to the suite that the real adapters pass."""

    needs_contact = True

    def __init__(self, rig: FakeRig) -> None:
        self._rig = rig

    async def deliver(self, message: Outgoing) -> SendResult:
        assert message.contact is not None
        place = message.contact.phone or ""
        if not self._rig.is_listening:
            return TemporaryFailure(NOT_REACHED, is_outage=True)
        control = self._rig.desk.control
        mood = self._rig.desk.mood()
        await asyncio.sleep(60 if mood is Mood.SILENT else control.delay_s)
        if mood in (Mood.BUSY, Mood.OUT, Mood.LOCKED):
            wait = None if control.retry_after_s is None else timedelta(seconds=control.retry_after_s)
            return TemporaryFailure(FakeRig.reasons[mood.value], retry_after=wait, is_outage=True)
        if place == FakeRig.refused:
            return PermanentFailure(FakeRig.reasons["refused"])
        if mood is Mood.GARBAGE:
            return TemporaryFailure(UNREADABLE_ANSWER, is_outage=True, is_unanswered=True)
        self._rig.desk.take(recipient=place, subject=message.subject, text=message.short, reference="fake")
        if mood is Mood.CUT:
            return TemporaryFailure(NO_ANSWER, is_outage=True, is_unanswered=True)
        return Sent("fake")


class FakeRig(Rig):
    name = "fake"
    good, other, refused = "place-of-ada", "place-of-alan", "nobody"
    reasons: ClassVar = {"refused": "FAKE_REFUSED", "busy": "FAKE_BUSY", "out": "FAKE_OUT", "locked": "FAKE_LOCKED"}

    def __init__(self) -> None:
        self._desk = Desk()
        self.is_listening = True
        super().__init__()

    @property
    def desk(self) -> Desk:
        return self._desk

    def vendor(self) -> Vendor:
        return FakeVendor(self)

    async def hang_up(self) -> None:
        self.is_listening = False

    async def listen_again(self) -> None:
        self.is_listening = True


RIGS: dict[str, Any] = {
    "twilio": TwilioRig,
    "sendgrid": SendGridRig,
    "smtp-starttls": lambda: SmtpRig(is_implicit=False),
    "smtp-implicit": lambda: SmtpRig(is_implicit=True),
    "fcm": FcmRig,
    "fake": FakeRig,
}


@asynccontextmanager
async def rigged(kind: str) -> AsyncIterator[Any]:
    """A channel with its stand-in, which listens."""
    rig = RIGS[kind]()
    await rig.listen_again()
    # Now that its port is known.
    rig.channel = rig.a_channel()
    try:
        yield rig
    finally:
        for mail in getattr(rig, "mails", ()):
            await mail.close()
        if hasattr(rig, "http"):
            await rig.http.close()
        await rig.hang_up()
