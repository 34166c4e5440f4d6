"""A stand-in for Twilio's Programmable Messaging: Messages.json, its errors, and signed status callbacks."""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from hashlib import sha1
from typing import Any, Final
from urllib.parse import urlencode

from aiohttp import BasicAuth, web

from payflow_dev.vendors.desk import Mood, Taken
from payflow_dev.vendors.http import HttpVendorServer, json_answer

# The numbers with which Twilio lets its users try its refusals.
MAGIC: Final = {
    "+15005550001": (400, 21211, "The 'To' number {to} is not a valid phone number."),
    "+15005550002": (400, 21612, "The message From/To pair violates a blacklist rule or cannot be routed."),
    "+15005550003": (403, 21408, "Permission to send an SMS has not been enabled for the region: {to}"),
    "+15005550004": (400, 21610, "Attempt to send to unsubscribed recipient {to}"),
    "+15005550009": (400, 21614, "To number: {to}, is not a mobile number"),
}
# Taken, and found undeliverable later.
UNREACHABLE: Final = "+15005550010"
OWN_NUMBER: Final = "+15005550006"
_E164: Final = re.compile(r"\+[1-9][0-9]{6,14}")
_BODY_MAX: Final = 1600


@dataclass(frozen=True)
class TwilioAccount:
    """An account with its credentials, as its console shows them."""

    sid: str = field(default_factory=lambda: "AC" + secrets.token_hex(16))
    auth_token: str = field(default_factory=lambda: secrets.token_hex(16))
    key_sid: str = field(default_factory=lambda: "SK" + secrets.token_hex(16))
    key_secret: str = field(default_factory=lambda: secrets.token_urlsafe(24))


class TwilioServer(HttpVendorServer):
    """One account's API."""

    def __init__(self, account: TwilioAccount | None = None) -> None:
        super().__init__()
        self.account = account or TwilioAccount()

    def routes(self) -> list[web.RouteDef]:
        path = "/2010-04-01/Accounts/{account_sid}/Messages.json"
        return [web.post(path, self._create), web.get(path, self._list)]

    def refusal(self, mood: Mood) -> web.Response:
        if mood is Mood.LOCKED:
            return _error(401, 20003, "Authenticate")
        if mood is Mood.BUSY:
            return _error(429, 20429, "Too Many Requests", headers=self.retry_headers())
        return _error(503, 20503, "Service is unavailable. Please try again.", headers=self.retry_headers())

    async def _create(self, request: web.Request) -> web.Response:
        refused = self._refuses_caller(request)
        form = {name: str(value) for name, value in (await request.post()).items()}
        refused = refused or _refuses(form)
        if refused is not None:
            return refused
        sid = "SM" + secrets.token_hex(16)
        taken = self.desk.take(recipient=form["To"], text=form["Body"], reference=sid, **form)
        if form.get("StatusCallback") and self.desk.control.receipts:
            self.later(self._tell(taken, form))
        return json_answer(201, self._shown(taken, status="queued"))

    async def _list(self, request: web.Request) -> web.Response:
        refused = self._refuses_caller(request)
        if refused is not None:
            return refused
        to = request.query.get("To")
        found = [taken for taken in reversed(self.desk.taken) if to in (None, taken.recipient)]
        page = found[: int(request.query.get("PageSize", "50"))]
        return json_answer(200, {"messages": [self._shown(taken, status="sent") for taken in page]})

    def _refuses_caller(self, request: web.Request) -> web.Response | None:
        account, sid = self.account, request.match_info["account_sid"]
        try:
            auth = BasicAuth.decode(request.headers.get("Authorization", ""), encoding="utf-8")
        except ValueError:
            return _error(401, 20003, "Authenticate")
        known = {account.sid: account.auth_token, account.key_sid: account.key_secret}
        if not hmac.compare_digest(known.get(auth.login, ""), auth.password) or not auth.password:
            return _error(401, 20003, "Authenticate")
        if sid != account.sid:
            return _error(404, 20404, f"The requested resource /2010-04-01/Accounts/{sid}/Messages.json was not found")
        return None

    def _shown(self, taken: Taken, *, status: str) -> dict[str, Any]:
        form = taken.fields
        return {
            "account_sid": self.account.sid,
            "api_version": "2010-04-01",
            "body": taken.text,
            "date_created": format_datetime(taken.taken_at),
            "date_sent": None,
            "date_updated": format_datetime(datetime.now(UTC)),
            "direction": "outbound-api",
            "error_code": None,
            "error_message": None,
            "from": form.get("From"),
            "messaging_service_sid": form.get("MessagingServiceSid"),
            "num_media": "0",
            "num_segments": str(max(1, -(-len(taken.text) // 153))),
            "price": None,
            "price_unit": "USD",
            "sid": taken.reference,
            "status": status,
            "to": taken.recipient,
            "uri": f"/2010-04-01/Accounts/{self.account.sid}/Messages/{taken.reference}.json",
        }

    async def _tell(self, taken: Taken, form: dict[str, str]) -> None:
        end = "undelivered" if taken.recipient == UNREACHABLE else "delivered"
        for status in ("sent", end):
            await self.tell(form["StatusCallback"], taken, status)

    async def tell(self, url: str, taken: Taken, status: str, **changes: str) -> None:
        """Call back about a message, signed."""
        body, headers = self.callback(url, taken, status, **changes)
        await self.call_back(url, body=body, headers=headers)

    def callback(self, url: str, taken: Taken, status: str, **changes: str) -> tuple[bytes, dict[str, str]]:
        """The body and the headers of a callback."""
        form = {
            "AccountSid": self.account.sid,
            "ApiVersion": "2010-04-01",
            "From": str(taken.fields.get("From", "")),
            "MessageSid": taken.reference,
            "MessageStatus": status,
            "SmsSid": taken.reference,
            "SmsStatus": status,
            "To": taken.recipient,
            **({"ErrorCode": "30003"} if status in ("undelivered", "failed") else {}),
            **changes,
        }
        signature = sign(url, form, auth_token=self.account.auth_token)
        headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": signature}
        return urlencode(form).encode(), headers


def sign(url: str, form: dict[str, str], *, auth_token: str) -> str:
    """X-Twilio-Signature: the address, then each parameter's name and value in the names' order."""
    text = url + "".join(name + form[name] for name in sorted(form))
    return base64.b64encode(hmac.new(auth_token.encode(), text.encode(), sha1).digest()).decode()


def _refuses(form: dict[str, str]) -> web.Response | None:
    to, body = form.get("To", ""), form.get("Body", "")
    if not to:
        return _error(400, 21604, "A 'To' phone number is required.")
    if not form.get("From") and not form.get("MessagingServiceSid"):
        return _error(400, 21603, "A 'From' phone number is required.")
    if not body:
        return _error(400, 21602, "Message body is required.")
    if len(body) > _BODY_MAX:
        return _error(400, 21617, "The concatenated message body exceeds the 1600 character limit.")
    if not _E164.fullmatch(to):
        return _error(400, 21211, f"Invalid 'To' Phone Number: {to}")
    if to in MAGIC:
        status, code, words = MAGIC[to]
        return _error(status, code, words.format(to=to))
    return None


def _error(status: int, code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    content = {
        "code": code,
        "message": message,
        "more_info": f"https://www.twilio.com/docs/errors/{code}",
        "status": status,
    }
    return json_answer(status, content, headers)
