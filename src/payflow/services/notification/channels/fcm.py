"""Push by Firebase Cloud Messaging, HTTP v1: POST /v1/projects/{project}/messages:send for each device of a customer.

A service account signs a JWT (RS256), which Google's token endpoint exchanges for an access token of an hour. FCM has
no idempotency key: a message carries our id as collapse key and tag, so that the same one again replaces the first on
the screen. FCM tells no server what became of a message; a device that is gone is told by the refusal, and forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

import msgspec
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import RSAKey

from payflow.kernel.clock import Clock
from payflow.platform.context import deadline_within
from payflow.platform.rpc.coalescer import Coalescer
from payflow.services.notification.channels.http import Answer, HttpCaller
from payflow.services.notification.channels.vendor import TIMEOUT_S_MAX, answered
from payflow.services.notification.domain import (
    NO_DEVICE,
    Device,
    Outgoing,
    PermanentFailure,
    SendResult,
    Sent,
    TemporaryFailure,
)
from payflow.services.notification.ports import DeviceBook

SCOPE: Final = "https://www.googleapis.com/auth/firebase.messaging"
GRANT: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
# A message about a payment that nobody has seen for a day is found in the list of payments.
_LIFE: Final = timedelta(days=1)
_ASSERTION_LIFE: Final = timedelta(hours=1)
# A token is renewed before it ends, for one that ends on its way is refused.
_TOKEN_MARGIN: Final = timedelta(minutes=2)
# What Google asks for where no Retry-After comes with a refusal for too many messages.
_PAUSE_AFTER_429: Final = timedelta(seconds=60)
_BODY_MAX: Final = 1000
_LOOKUP_MAX: Final = 500
_LOOKUPS_WAITING_MAX: Final = 10_000
_FCM_ERROR: Final = "type.googleapis.com/google.firebase.fcm.v1.FcmError"


class ServiceAccount(msgspec.Struct, frozen=True, kw_only=True):
    """The file that the Firebase console gives out, as far as it is needed."""

    project_id: str
    client_email: str
    private_key: str
    private_key_id: str = ""
    token_uri: str = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address

    @classmethod
    def read(cls, text: str) -> ServiceAccount:
        """Read the JSON. Raises ValueError, which does not quote it."""
        try:
            account = msgspec.json.decode(text, type=cls)
            RSAKey.import_key(account.private_key)
        except (msgspec.DecodeError, ValueError, TypeError, JoseError):
            raise ValueError("expected a service account's key file (JSON with project_id and private_key)") from None
        return account


class _Violation(msgspec.Struct):
    field: str = ""


class _Detail(msgspec.Struct):
    type: str = msgspec.field(name="@type", default="")
    error_code: str = msgspec.field(name="errorCode", default="")
    violations: list[_Violation] = msgspec.field(name="fieldViolations", default_factory=list)


class _Status(msgspec.Struct):
    status: str = ""
    details: list[_Detail] = []


class _Refusal(msgspec.Struct):
    error: _Status

    @property
    def code(self) -> str:
        """FCM's own code where there is one, else Google's general one."""
        ours = [detail.error_code for detail in self.error.details if detail.type == _FCM_ERROR]
        return next((code for code in ours if code), self.error.status)

    @property
    def is_about_the_token(self) -> bool:
        """Whether INVALID_ARGUMENT means the device and not what was sent to it."""
        return any(one.field == "message.token" for detail in self.error.details for one in detail.violations)


class _Taken(msgspec.Struct):
    name: str


class _Token(msgspec.Struct):
    access_token: str
    expires_in: int = 3600


class AccessTokens:
    """Access tokens of a service account: one at a time, renewed before it ends."""

    def __init__(self, *, account: ServiceAccount, http: HttpCaller, clock: Clock) -> None:
        self._account = account
        self._key = RSAKey.import_key(account.private_key)
        self._http = http
        self._clock = clock
        self._token = ""
        self._valid_until: datetime | None = None
        self._lock = asyncio.Lock()

    async def get(self, *, refused: str = "") -> str | TemporaryFailure:
        """A token that is valid for a while, another one than `refused`; or why there is none."""
        async with self._lock:
            now = self._clock.now()
            is_known = self._valid_until is not None and now < self._valid_until - _TOKEN_MARGIN
            if is_known and self._token != refused:
                return self._token
            form = {"grant_type": GRANT, "assertion": self._assertion(now)}
            answer = await self._http.ask("POST", self._account.token_uri, data=form)
            if answer.status != 200:
                wait = answer.retry_after(now=now)
                return TemporaryFailure(f"GOOGLE_TOKEN_HTTP_{answer.status}", retry_after=wait, is_outage=True)
            token = answer.read(_Token)
            self._token, self._valid_until = token.access_token, now + timedelta(seconds=token.expires_in)
            return self._token

    def _assertion(self, now: datetime) -> str:
        claims = {
            "iss": self._account.client_email,
            "scope": SCOPE,
            "aud": self._account.token_uri,
            "iat": int(now.timestamp()),
            "exp": int((now + _ASSERTION_LIFE).timestamp()),
        }
        header = {"alg": "RS256", "typ": "JWT"}
        if self._account.private_key_id:
            header["kid"] = self._account.private_key_id
        return jwt.encode(header, claims, self._key, algorithms=["RS256"])


class FcmPush:
    """See channels.vendor.Vendor. A message is sent when one of the customer's devices has it."""

    needs_contact = False

    def __init__(
        self, *, url: str, account: ServiceAccount, devices: DeviceBook, http: HttpCaller, clock: Clock
    ) -> None:
        self._url = f"{url.rstrip('/')}/v1/projects/{quote(account.project_id, safe='')}/messages:send"
        self._tokens = AccessTokens(account=account, http=http, clock=clock)
        self._devices = devices
        # Messages are called for one by one; their devices are looked up together.
        self._lookups: Coalescer[str, list[Device]] = Coalescer(
            self._look_up, calls_in_flight=1, batch_max=_LOOKUP_MAX, queue_max=_LOOKUPS_WAITING_MAX
        )
        self._http = http
        self._clock = clock

    async def deliver(self, message: Outgoing) -> SendResult:
        (devices,) = await self._lookups.ask([message.customer_id], deadline=deadline_within(TIMEOUT_S_MAX))
        if not devices:
            return PermanentFailure(NO_DEVICE)
        token = await self._tokens.get()
        if isinstance(token, TemporaryFailure):
            return token
        gone: list[UUID] = []
        # Each for itself: what one device's call came to must not be lost with another's.
        results = await asyncio.gather(
            *(
                answered(partial(self._to_device, message, device, token, gone), timeout_s=TIMEOUT_S_MAX)
                for device in devices
            )
        )
        if gone:
            await self._devices.forget(gone)
        return _all_in_all(results)

    async def _look_up(self, customer_ids: list[str], deadline: float) -> list[list[Device]]:
        found = await self._devices.of_customers(customer_ids)
        return [found.get(customer_id, []) for customer_id in customer_ids]

    async def _to_device(self, message: Outgoing, device: Device, token: str, gone: list[UUID]) -> SendResult:
        answer = await self._post(message, device, token)
        if answer.status == 401:
            fresh = await self._tokens.get(refused=token)
            if isinstance(fresh, TemporaryFailure):
                return fresh
            answer = await self._post(message, device, fresh)
        if answer.status == 200:
            return Sent(answer.read(_Taken).name)
        return self._failure(answer, device, gone)

    async def _post(self, message: Outgoing, device: Device, token: str) -> Answer:
        content = {"message": self._content(message, device.token)}
        return await self._http.ask("POST", self._url, json=content, headers={"Authorization": f"Bearer {token}"})

    def _content(self, message: Outgoing, token: str) -> dict[str, Any]:
        now = self._clock.now()
        expires_at = message.expires_at or now + _LIFE
        identity = str(message.message_id)
        life_s = max(0, int((expires_at - now).total_seconds()))
        return {
            "token": token,
            "notification": {"title": message.subject, "body": message.short[:_BODY_MAX]},
            "data": {"message_id": identity, "kind": message.kind.value},
            "android": {
                "priority": "HIGH" if message.code is not None else "NORMAL",
                "ttl": f"{life_s}s",
                "collapse_key": identity,
                "notification": {"tag": identity},
            },
            "apns": {
                "headers": {
                    "apns-collapse-id": identity,
                    "apns-expiration": str(int(expires_at.timestamp())),
                    "apns-priority": "10" if message.code is not None else "5",
                }
            },
            "webpush": {"headers": {"TTL": str(life_s)}, "notification": {"tag": identity}},
        }

    def _failure(self, answer: Answer, device: Device, gone: list[UUID]) -> SendResult:
        refusal = answer.read_or(_Refusal, _Refusal(_Status()))
        reason = f"FCM_{refusal.code or f'HTTP_{answer.status}'}"
        if refusal.code == "UNREGISTERED" or (refusal.code == "INVALID_ARGUMENT" and refusal.is_about_the_token):
            gone.append(device.device_id)
            return PermanentFailure(reason)
        if refusal.code == "SENDER_ID_MISMATCH":
            return PermanentFailure(reason)  # registered by an app of another project; it may be ours again
        wait = answer.retry_after(now=self._clock.now())
        if answer.status == 429:
            return TemporaryFailure(reason, retry_after=wait or _PAUSE_AFTER_429, is_outage=True)
        if answer.status >= 500:
            return TemporaryFailure(reason, retry_after=wait, is_outage=True, is_unanswered=True)
        if answer.status == 400:
            return PermanentFailure(reason)
        return TemporaryFailure(reason, retry_after=wait, is_outage=True)


def _all_in_all(results: Sequence[SendResult]) -> SendResult:
    """What all devices' results mean for the message: sent if to any, put off if that may help, else refused."""
    for kind in (Sent, TemporaryFailure):
        for result in results:
            if isinstance(result, kind):
                return result
    return results[0]
