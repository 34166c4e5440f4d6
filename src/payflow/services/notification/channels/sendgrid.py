"""E-mail by SendGrid: POST /v3/mail/send with JSON, answered 202 with X-Message-Id.

SendGrid has no idempotency key. A message keeps its Message-ID in every try, so that mailboxes show it once, and
carries our id as a custom argument, which comes back with every event (`sendgrid_callbacks`): the event of a message
whose answer was lost settles its delivery.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from payflow.kernel.clock import Clock
from payflow.services.notification.channels.http import Answer, HttpCaller
from payflow.services.notification.channels.vendor import UnreadableAnswer
from payflow.services.notification.domain import (
    NO_ADDRESS,
    Outgoing,
    PermanentFailure,
    SendResult,
    Sent,
    TemporaryFailure,
)

PATH: Final = "/v3/mail/send"
# The custom argument with our id; it stands among the fields of each event.
ARGUMENT: Final = "payflow_message_id"
_PAUSE_AFTER_429: Final = timedelta(seconds=10)
# What the account may not do, and not what is wrong with the message.
_ACCOUNTS_FIELDS: Final = ("from", "from.email", "template_id", "categories", "ip_pool_name")


class _Error(msgspec.Struct):
    field: str | None = None


class _Errors(msgspec.Struct):
    errors: list[_Error] = []


class EmailSender(msgspec.Struct, frozen=True, kw_only=True):
    """From whom e-mail comes."""

    address: str
    name: str = ""

    @property
    def domain(self) -> str:
        """What stands behind the @ of our own message ids."""
        return self.address.rpartition("@")[2]


def message_id_header(message: Outgoing, sender: EmailSender) -> str:
    """The same in every try of a message."""
    return f"<{message.message_id}@{sender.domain}>"


class SendGridMail:
    """See channels.vendor.Vendor."""

    needs_contact = True

    def __init__(self, *, url: str, api_key: str, sender: EmailSender, http: HttpCaller, clock: Clock) -> None:
        self._url = url.rstrip("/") + PATH
        self._headers = {"Authorization": f"Bearer {api_key}"}
        self._sender = sender
        self._http = http
        self._clock = clock

    async def deliver(self, message: Outgoing) -> SendResult:
        address = message.contact.email if message.contact else None
        if not address:
            return PermanentFailure(NO_ADDRESS)
        answer = await self._http.ask("POST", self._url, json=self._mail(message, address), headers=self._headers)
        if answer.status == 202:
            return Sent(answer.headers.get("X-Message-Id"))
        if answer.status < 300:
            raise UnreadableAnswer
        return _failure(answer, now=self._clock.now())

    def _mail(self, message: Outgoing, address: str) -> dict[str, Any]:
        sender = {"email": self._sender.address, **({"name": self._sender.name} if self._sender.name else {})}
        return {
            "personalizations": [{"to": [{"email": address}], "custom_args": {ARGUMENT: str(message.message_id)}}],
            "from": sender,
            "subject": message.subject,
            "content": [{"type": "text/plain", "value": message.body}],
            "headers": {"Message-ID": message_id_header(message, self._sender), "Auto-Submitted": "auto-generated"},
            "categories": [message.kind.value],
            # No link is rewritten and no picture is planted: what a customer reads and when is nobody's business.
            "tracking_settings": {
                "click_tracking": {"enable": False, "enable_text": False},
                "open_tracking": {"enable": False},
            },
        }


def _failure(answer: Answer, *, now: datetime) -> SendResult:
    """What a refusal means. Its words are not looked at: they name the address."""
    reason = f"SENDGRID_HTTP_{answer.status}"
    if answer.status == 429:
        return TemporaryFailure(reason, retry_after=_reset(answer, now=now), is_outage=True)
    if answer.status >= 500:
        return TemporaryFailure(reason, retry_after=answer.retry_after(now=now), is_outage=True, is_unanswered=True)
    if answer.status not in (400, 413):
        return TemporaryFailure(reason, is_outage=True)
    fields = [error.field or "" for error in answer.read_or(_Errors, _Errors()).errors]
    if fields and all(field in _ACCOUNTS_FIELDS for field in fields):
        return TemporaryFailure(reason, is_outage=True)
    return PermanentFailure(reason)


def _reset(answer: Answer, *, now: datetime) -> timedelta:
    """How long until X-RateLimit-Reset, which is in seconds since 1970."""
    said = answer.headers.get("X-RateLimit-Reset", "")
    if not (said.isascii() and said.isdigit() and len(said) <= 11):
        return answer.retry_after(now=now) or _PAUSE_AFTER_429
    return max(timedelta(seconds=1), datetime.fromtimestamp(int(said), UTC) - now)
