"""SMS by Twilio's Programmable Messaging: POST /2010-04-01/Accounts/{AccountSid}/Messages.json, form encoded.

Twilio has no idempotency key for messages. After a try that was not answered the account's own list of messages is
asked first, and a message to that number with these words since then is taken for ours. Besides, Twilio calls back
about each message at an address that names it (`twilio_callbacks`): that settles a delivery whose answer was lost.
"""

from __future__ import annotations

import base64
import math
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, urlencode

import msgspec

from payflow.kernel.clock import Clock
from payflow.services.notification.channels.http import Answer, HttpCaller
from payflow.services.notification.domain import (
    NO_ADDRESS,
    Outgoing,
    PermanentFailure,
    SendResult,
    Sent,
    TemporaryFailure,
    international_number,
)

CALLBACK_PATH: Final = "/callbacks/twilio"
BODY_CHARACTERS_MAX: Final = 1600
VALIDITY_S_MAX: Final = 36_000
# The account's clock and ours may differ, and its list has whole seconds.
_CLOCKS_DIFFER: Final = timedelta(minutes=2)
_LISTED: Final = 50
# What is wrong with this recipient or this text, whatever the status: no such number, not a mobile one, no route or no
# permission for its country, unsubscribed, too long.
_RECIPIENTS: Final = frozenset({21211, 21214, 21217, 21219, 21265, 21408, 21608, 21610, 21612, 21614, 21617})
# Our account, our number or our rate is at fault although the status is 400: every other message fares the same until
# somebody puts it in order, or until the queue is shorter.
_OURS: Final = frozenset({14107, 20003, 20429, 21212, 21603, 21606, 21611, 21659, 21660, 21705, 21910, 30001, 63038})
_PAUSE_AFTER_429: Final = timedelta(seconds=5)


class _Taken(msgspec.Struct):
    sid: str
    status: str


class _Error(msgspec.Struct):
    code: int | None = None


class _Listed(msgspec.Struct):
    sid: str
    body: str | None = None
    date_created: str | None = None
    status: str = ""


class _List(msgspec.Struct):
    messages: list[_Listed]


class TwilioSettings(msgspec.Struct, frozen=True, kw_only=True):
    """An account. `key_sid` and `key_secret`: what signs in, an API key or the account itself with its auth token.

    `sender`: a number in E.164, an alphanumeric sender, or the SID of a messaging service (MG...). `public_url`: where
    Twilio reaches our gateway; empty where it shall not call back.
    """

    url: str
    account_sid: str
    key_sid: str
    key_secret: str
    sender: str
    public_url: str = ""


class TwilioSms:
    """See channels.vendor.Vendor."""

    needs_contact = True

    def __init__(self, *, settings: TwilioSettings, http: HttpCaller, clock: Clock) -> None:
        self._settings = settings
        self._http = http
        self._clock = clock
        login = base64.b64encode(f"{settings.key_sid}:{settings.key_secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}"}
        account = quote(settings.account_sid, safe="")
        self._messages_url = f"{settings.url.rstrip('/')}/2010-04-01/Accounts/{account}/Messages.json"

    async def deliver(self, message: Outgoing) -> SendResult:
        number = international_number(message.contact.phone if message.contact else None)
        if number is None:
            return PermanentFailure(NO_ADDRESS)
        text = message.short[:BODY_CHARACTERS_MAX]
        if message.is_doubtful:
            known = await self._find(number, text, since=message.created_at - _CLOCKS_DIFFER)
            if known is not None:
                return Sent(known)
        answer = await self._http.ask(
            "POST", self._messages_url, data=self._form(message, number, text), headers=self._headers
        )
        if answer.status in (200, 201):
            return Sent(answer.read(_Taken).sid)
        return _failure(answer, now=self._clock.now())

    def _form(self, message: Outgoing, number: str, text: str) -> dict[str, str]:
        sender = "MessagingServiceSid" if self._settings.sender.startswith("MG") else "From"
        form = {"To": number, sender: self._settings.sender, "Body": text}
        if message.expires_at is not None:
            # A code that comes when it is void helps nobody.
            left_s = math.ceil((message.expires_at - self._clock.now()).total_seconds())
            form["ValidityPeriod"] = str(max(1, min(left_s, VALIDITY_S_MAX)))
        if self._settings.public_url:
            query = urlencode({"message_id": str(message.message_id)})
            form["StatusCallback"] = f"{self._settings.public_url.rstrip('/')}{CALLBACK_PATH}?{query}"
        return form

    async def _find(self, number: str, text: str, *, since: datetime) -> str | None:
        """The SID of a message to this number with these words, if one was made since; None also where the account
        cannot tell: a message that comes twice is better than one that never comes."""
        query = {"To": number, "PageSize": str(_LISTED)}
        answer = await self._http.ask("GET", self._messages_url, params=query, headers=self._headers)
        listed = answer.read_or(_List, _List([])).messages if answer.status == 200 else []
        matching = (one for one in listed if one.body == text and one.status not in ("failed", "canceled"))
        return next((one.sid for one in matching if _instant(one.date_created, default=since) >= since), None)


def _instant(text: str | None, *, default: datetime) -> datetime:
    try:
        return parsedate_to_datetime(text or "")
    except (ValueError, TypeError):
        return default


def _failure(answer: Answer, *, now: datetime) -> SendResult:
    """What a refusal means. Its words are not looked at: they name the number."""
    code = answer.read_or(_Error, _Error()).code
    reason = f"TWILIO_{code}" if code is not None else f"TWILIO_HTTP_{answer.status}"
    if code in _RECIPIENTS:
        return PermanentFailure(reason)
    if answer.status == 429 or code == 20429:
        wait = answer.retry_after(now=now) or _PAUSE_AFTER_429
        return TemporaryFailure(reason, retry_after=wait, is_outage=True)
    if answer.status >= 500:
        # It may have been taken before it went wrong.
        wait_or_none = answer.retry_after(now=now)
        return TemporaryFailure(reason, retry_after=wait_or_none, is_outage=True, is_unanswered=True)
    if answer.status != 400 or code is None or code in _OURS:
        return TemporaryFailure(reason, is_outage=True)
    return PermanentFailure(reason)
