"""A stand-in for SendGrid: /v3/mail/send with its errors and limits, and the signed event webhook."""

from __future__ import annotations

import base64
import re
import secrets
import time
from typing import Any, Final

import msgspec
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from payflow_dev.vendors.desk import Mood, Taken
from payflow_dev.vendors.http import HttpVendorServer, json_answer

# Addresses that play a part: taken and bounced later, suppressed since an earlier bounce.
BOUNCES: Final = "bounce@example.org"
SUPPRESSED: Final = "suppressed@example.org"
_ADDRESS: Final = re.compile(r"[^@\s]+@[^@\s]+\.[a-z]{2,}")
_NO_VALID_ADDRESS: Final = "Does not contain a valid address."
_LIMIT: Final = 600
_BODY_MAX: Final = 30 * 1024 * 1024


class _Address(msgspec.Struct):
    email: str
    name: str = ""


class _Personalization(msgspec.Struct):
    to: list[_Address]
    custom_args: dict[str, str] = {}


class _Content(msgspec.Struct):
    type: str
    value: str


class _Mail(msgspec.Struct):
    personalizations: list[_Personalization]
    sender: _Address = msgspec.field(name="from")
    subject: str = ""
    content: list[_Content] = []
    headers: dict[str, str] = {}
    categories: list[str] = []
    tracking_settings: dict[str, Any] = {}


class SendGridServer(HttpVendorServer):
    """One account's API. `event_url`: where events are posted; none where it is empty."""

    def __init__(self, *, sender: str = "no-reply@payflow.example", event_url: str = "") -> None:
        super().__init__()
        self.api_key = f"SG.{secrets.token_urlsafe(16)}.{secrets.token_urlsafe(32)}"
        self.sender = sender
        self.event_url = event_url
        self._key = ec.generate_private_key(ec.SECP256R1())

    @property
    def public_key(self) -> str:
        """The verification key as the settings of the event webhook show it."""
        der = self._key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return base64.b64encode(der).decode()

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/v3/mail/send", self._send)]

    def refusal(self, mood: Mood) -> web.Response:
        if mood is Mood.LOCKED:
            return _error(401, "The provided authorization grant is invalid, expired, or revoked")
        if mood is Mood.BUSY:
            reset = int(time.time()) + (self.desk.control.retry_after_s or 1)
            limits = {"X-RateLimit-Limit": str(_LIMIT), "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}
            return _error(429, "too many requests", headers=limits)
        return _error(503, "service unavailable", headers=self.retry_headers())

    async def _send(self, request: web.Request) -> web.Response:
        if not secrets.compare_digest(request.headers.get("Authorization", ""), f"Bearer {self.api_key}"):
            return _error(401, "The provided authorization grant is invalid, expired, or revoked")
        if request.content_type != "application/json":
            return _error(415, "Content-Type should be application/json.")
        body = await request.read()
        if len(body) > _BODY_MAX:
            return _error(413, "Payload too large")
        try:
            mail = msgspec.json.decode(body, type=_Mail)
        except msgspec.DecodeError as error:
            return _error(400, f"Bad Request: {error}")
        refused = self._refuses(mail)
        if refused is not None:
            return refused
        message_id = secrets.token_urlsafe(16)
        personal = mail.personalizations[0]
        taken = self.desk.take(
            recipient=personal.to[0].email,
            subject=mail.subject,
            text=mail.content[0].value,
            reference=message_id,
            custom_args=personal.custom_args,
            headers=mail.headers,
            categories=mail.categories,
            tracking_settings=mail.tracking_settings,
        )
        if self.event_url and self.desk.control.receipts:
            self.later(self._tell(taken))
        return web.Response(status=202, headers={"X-Message-Id": message_id})

    def _refuses(self, mail: _Mail) -> web.Response | None:
        if mail.sender.email != self.sender:
            words = "The from address does not match a verified Sender Identity."
            return _error(403, words, field="from")
        if not mail.personalizations or not mail.personalizations[0].to:
            return _error(400, "The personalizations field is required.", field="personalizations")
        for number, address in enumerate(mail.personalizations[0].to):
            if not _ADDRESS.fullmatch(address.email):
                return _error(400, _NO_VALID_ADDRESS, field=f"personalizations.0.to.{number}.email")
        if not mail.subject:
            return _error(400, "The subject is required.", field="subject")
        if not mail.content or not mail.content[0].value:
            return _error(400, "The content value must be a string at least one character in length.", field="content")
        return None

    async def _tell(self, taken: Taken) -> None:
        if taken.recipient == SUPPRESSED:
            events = [self.event(taken, "processed"), self.event(taken, "dropped", reason="Bounced Address")]
        elif taken.recipient == BOUNCES:
            bounce = self.event(taken, "bounce", type="bounce", status="5.1.1", reason="550 no such user")
            events = [self.event(taken, "processed"), bounce]
        else:
            events = [self.event(taken, "processed"), self.event(taken, "delivered", response="250 OK")]
        body, headers = self.callback(events)
        await self.call_back(self.event_url, body=body, headers=headers)

    def event(self, taken: Taken, event: str, **fields: Any) -> dict[str, Any]:
        """An event about a message, as the webhook has it."""
        return {
            "email": taken.recipient,
            "timestamp": int(time.time()),
            "smtp-id": taken.fields["headers"].get("Message-ID", ""),
            "event": event,
            "category": taken.fields["categories"],
            "sg_event_id": secrets.token_urlsafe(18),
            "sg_message_id": f"{taken.reference}.recvd-5d9c7d9d5b-abcde-1-65A1B2C3-1.0",
            **taken.fields["custom_args"],
            **fields,
        }

    def callback(self, events: list[dict[str, Any]], *, at: int | None = None) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of a call with events, signed at a time."""
        body = msgspec.json.encode(events) + b"\r\n"
        timestamp = str(int(time.time()) if at is None else at)
        signature = self._key.sign(timestamp.encode() + body, ec.ECDSA(SHA256()))
        headers = {
            "Content-Type": "application/json;charset=utf-8",
            "X-Twilio-Email-Event-Webhook-Signature": base64.b64encode(signature).decode(),
            "X-Twilio-Email-Event-Webhook-Timestamp": timestamp,
        }
        return body, headers


def _error(
    status: int, message: str, *, field: str | None = None, headers: dict[str, str] | None = None
) -> web.Response:
    return json_answer(status, {"errors": [{"message": message, "field": field, "help": None}]}, headers)
