"""What only one vendor has: Twilio's codes, SendGrid's fields, TLS of mail servers, FCM's devices and tokens."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from aiohttp import web

from payflow.services.notification.channels.http import HttpCaller
from payflow.services.notification.channels.smtp import SmtpMail, SmtpServer
from payflow.services.notification.channels.twilio import TwilioSettings, TwilioSms
from payflow.services.notification.channels.vendor import NotReached, VendorChannel
from payflow.services.notification.domain import PermanentFailure, Sent, TemporaryFailure
from payflow_dev.vendors import fcm, smtp, twilio
from payflow_dev.vendors.desk import Mood
from tests.builders_channels import SENDER, FcmRig, SendGridRig, SmtpRig, TwilioRig, WallClock, rigged
from tests.support.receiver import receiving


@pytest.fixture
async def sms() -> AsyncIterator[TwilioRig]:
    async with rigged("twilio") as rig:
        yield rig


@pytest.fixture
async def push() -> AsyncIterator[FcmRig]:
    async with rigged("fcm") as rig:
        yield rig


@pytest.fixture
async def sendgrid() -> AsyncIterator[SendGridRig]:
    async with rigged("sendgrid") as rig:
        yield rig


@pytest.fixture
async def mail() -> AsyncIterator[SmtpRig]:
    async with rigged("smtp-starttls") as rig:
        yield rig


# --- Twilio


@pytest.mark.parametrize(("number", "answer"), sorted(twilio.MAGIC.items()))
async def test_what_is_wrong_with_a_number_is_final_whatever_the_status(
    sms: TwilioRig, number: str, answer: tuple[int, int, str]
) -> None:
    (result,) = await sms.send(await sms.a_message(number))

    assert result == PermanentFailure(f"TWILIO_{answer[1]}")


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (400, b'{"code": 21211, "status": 400}', PermanentFailure("TWILIO_21211")),
        (400, b'{"code": 21999, "status": 400}', PermanentFailure("TWILIO_21999")),
        (400, b'{"code": 21606}', TemporaryFailure("TWILIO_21606", is_outage=True)),
        (400, b"<html>", TemporaryFailure("TWILIO_HTTP_400", is_outage=True)),
        (404, b'{"code": 20404}', TemporaryFailure("TWILIO_20404", is_outage=True)),
        (
            429,
            b'{"code": 20429}',
            TemporaryFailure("TWILIO_20429", retry_after=timedelta(seconds=5), is_outage=True),
        ),
        (500, b"", TemporaryFailure("TWILIO_HTTP_500", is_outage=True, is_unanswered=True)),
        (302, b"", TemporaryFailure("TWILIO_HTTP_302", is_outage=True)),
    ],
)
async def test_a_refusal_of_twilios_is_read_by_its_code(status: int, body: bytes, result: Any) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda: web.Response(status=status, body=body)
        http = HttpCaller()
        settings = TwilioSettings(
            url=receiver.url(""), account_sid="AC1", key_sid="SK1", key_secret="s", sender="+15005550006"
        )
        async with rigged("twilio") as rig:
            message = await rig.a_message()

        answer = await TwilioSms(settings=settings, http=http, clock=WallClock()).deliver(message)
        await http.close()

    assert answer == result


async def test_an_sms_with_a_code_is_not_delivered_when_the_code_is_void(sms: TwilioRig) -> None:
    await sms.send(await sms.a_message(code="111111"), await sms.a_message(sms.other))

    with_code, without = sms.taken
    assert 290 <= int(with_code.fields["ValidityPeriod"]) <= 300
    assert "ValidityPeriod" not in without.fields
    assert with_code.fields["From"] == twilio.OWN_NUMBER
    assert "StatusCallback" not in with_code.fields


async def test_a_messaging_service_sends_and_calls_back_where_we_can_be_reached(sms: TwilioRig) -> None:
    account = sms.server.account
    settings = TwilioSettings(
        url=sms.server.url,
        account_sid=account.sid,
        key_sid=account.sid,
        key_secret=account.auth_token,
        sender="MG0123",
        public_url="https://pay.example.org/",
    )
    sms.desk.control = msgspec.structs.replace(sms.desk.control, receipts=False)
    message = await sms.a_message()

    result = await TwilioSms(settings=settings, http=sms.http, clock=sms.clock).deliver(message)

    (taken,) = sms.taken
    assert isinstance(result, Sent)
    assert taken.fields["MessagingServiceSid"] == "MG0123"
    assert taken.fields["StatusCallback"] == f"https://pay.example.org/callbacks/twilio?message_id={message.message_id}"


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("+31 20 555 0100", "+31205550100"),
        ("0031 (20) 5550-100", "+31205550100"),
        (" +44 20 7946.0000", "+442079460000"),
        ("020 555 0100", None),
        ("+0 123 456 789", None),
        ("+31 20", None),
        ("+123456789012345678", None),
    ],
)
async def test_a_number_is_written_to_as_networks_take_it_or_not_at_all(
    sms: TwilioRig, written: str, number: str | None
) -> None:
    (result,) = await sms.send(await sms.a_message(written))

    assert [taken.recipient for taken in sms.taken] == ([number] if number else [])
    assert isinstance(result, Sent) == (number is not None)


async def test_an_older_message_with_the_same_words_is_not_taken_for_this_one(sms: TwilioRig) -> None:
    message = await sms.a_message()
    await sms.send(message)

    later = replace(message, is_doubtful=True, created_at=message.created_at + timedelta(hours=1))
    await sms.send(later)

    assert len(sms.taken) == 2


# --- SendGrid


async def test_a_mail_is_plain_is_not_tracked_and_carries_our_id(sendgrid: SendGridRig) -> None:
    message = await sendgrid.a_message()
    await sendgrid.send(message)

    (taken,) = sendgrid.taken
    assert taken.text == message.body
    assert taken.fields["custom_args"] == {"payflow_message_id": str(message.message_id)}
    assert taken.fields["headers"]["Message-ID"] == f"<{message.message_id}@payflow.example>"
    assert taken.fields["tracking_settings"]["click_tracking"]["enable"] is False
    assert taken.fields["tracking_settings"]["open_tracking"]["enable"] is False


async def test_a_sender_that_is_not_verified_is_our_fault_and_not_the_messages(sendgrid: SendGridRig) -> None:
    sendgrid.server.sender = "someone@else.example"

    (result,) = await sendgrid.send(await sendgrid.a_message())

    assert result == TemporaryFailure("SENDGRID_HTTP_403", is_outage=True)


@pytest.mark.parametrize(
    "answer", [{"status": 200}, {"status": 204}, {"status": 202, "headers": {"X-Message-Id": "x"}}]
)
async def test_only_202_means_that_a_mail_was_taken(sendgrid: SendGridRig, answer: dict[str, Any]) -> None:
    async with receiving() as receiver:
        receiver.answer = lambda: web.Response(**answer)
        sendgrid.server.port = receiver.port
        sendgrid.channel = sendgrid.a_channel()

        (result,) = await sendgrid.send(await sendgrid.a_message())

    assert isinstance(result, Sent) == (answer["status"] == 202)


# --- SMTP


async def test_a_mail_says_that_it_is_automatic_and_keeps_its_letters(mail: SmtpRig) -> None:
    message = await mail.a_message(subject="Zahlung über 5 € wurde ausgeführt")
    await mail.send(message)

    (taken,) = mail.taken
    headers = taken.fields["headers"]
    assert taken.subject == message.subject
    assert taken.text == message.body
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["From"] == "Payflow Bank <no-reply@payflow.example>"
    assert headers["Message-ID"] == f"<{message.message_id}@payflow.example>"


async def test_a_server_that_offers_no_starttls_gets_no_mail(mail: SmtpRig) -> None:
    async with rigged("smtp-implicit") as other:
        # TLS from the first byte where STARTTLS is spoken, and the other way round.
        for port, tls in ((mail.server.port, "implicit"), (other.server.port, "starttls")):
            server = SmtpServer(host="127.0.0.1", port=port, tls=tls)
            adapter = SmtpMail(server=server, sender=SENDER, clock=WallClock())
            channel = VendorChannel(name="email", vendor=adapter, carries_codes=True, timeout_s=0.4, calls_max=1)
            (result,) = await channel.send([await mail.a_message()])
            assert isinstance(result, TemporaryFailure)
            assert mail.taken == other.taken == []


async def test_a_server_whose_certificate_nobody_trusts_gets_no_mail(mail: SmtpRig) -> None:
    server = SmtpServer(
        host="127.0.0.1",
        port=mail.server.port,
        tls="starttls",
        username=smtp.USERNAME,
        password=mail.server.password,
        context=ssl.create_default_context(),
    )

    with pytest.raises(NotReached):
        await SmtpMail(server=server, sender=SENDER, clock=WallClock()).deliver(await mail.a_message())

    assert mail.taken == []


async def test_a_connection_is_used_for_several_mails_and_replaced_when_it_was_cut(mail: SmtpRig) -> None:
    await mail.send(await mail.a_message())
    first = mail.server.connections
    await mail.send(await mail.a_message())
    second = mail.server.connections
    await mail.hang_up()
    await mail.listen_again()

    (result,) = await mail.send(await mail.a_message())

    assert (first, second, mail.server.connections) == (1, 1, 2)
    assert isinstance(result, Sent)
    assert len(mail.taken) == 3


@pytest.mark.parametrize("address", ["a@example.org\r\nBcc: b@example.org", "no address", "@example.org", "ä@@x"])
async def test_what_is_no_address_becomes_no_header(mail: SmtpRig, address: str) -> None:
    (result,) = await mail.send(await mail.a_message(address))

    assert isinstance(result, PermanentFailure)
    assert mail.taken == []


# --- FCM


async def test_a_message_goes_to_every_device_and_one_that_is_gone_is_forgotten(push: FcmRig) -> None:
    message = await push.a_message("token-1")
    for token in ("token-2", f"{fcm.GONE}token", fcm.NO_TOKEN):
        await push.a_device(message.customer_id, token)

    (result,) = await push.send(message)

    left = (await push.devices.of_customers([message.customer_id]))[message.customer_id]
    assert isinstance(result, Sent)
    assert {taken.recipient for taken in push.taken} == {"token-1", "token-2"}
    assert {device.token for device in left} == {"token-1", "token-2"}


async def test_an_access_token_is_asked_for_once_and_renewed_when_it_is_refused(push: FcmRig) -> None:
    await push.send(*[await push.a_message() for _ in range(5)])
    before = push.server.tokens_given
    push.server.revoke_tokens()

    results = await push.send(*[await push.a_message() for _ in range(5)])

    assert before == 1
    assert push.server.tokens_given == 2
    assert {type(result) for result in results} == {Sent}


async def test_a_service_account_of_another_project_is_our_fault(push: FcmRig) -> None:
    push.server.client_email = "somebody@else.example"

    (result,) = await push.send(await push.a_message())

    assert result == TemporaryFailure("GOOGLE_TOKEN_HTTP_400", is_outage=True)


async def test_a_push_message_with_a_code_wakes_the_phone_and_ends_with_the_code(push: FcmRig) -> None:
    await push.send(await push.a_message(code="111111"), await push.a_message(push.other))

    with_code, without = push.taken
    assert with_code.fields["android"]["priority"] == "HIGH"
    assert 290 <= int(with_code.fields["android"]["ttl"].rstrip("s")) <= 300
    assert without.fields["android"]["ttl"] == "86400s"


async def test_a_pause_that_google_asks_for_is_kept(push: FcmRig) -> None:
    push.desk.be(Mood.OUT, retry_after_s=20)

    (result,) = await push.send(await push.a_message())

    assert isinstance(result, TemporaryFailure)
    assert result.reason == "FCM_UNAVAILABLE"
    assert result.retry_after == timedelta(seconds=20)
