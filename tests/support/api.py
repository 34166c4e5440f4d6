"""A client of the public API for tests: sends exactly what a test says, and tells exactly what came back."""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import aiohttp
from yarl import URL

from payflow.contracts.kyc import VerificationState
from payflow.contracts.notification import FindDemoCode, Notification
from payflow.kernel.errors import PayflowError
from payflow.run.loading import load_records
from payflow.run.local_rpc import LocalServices
from payflow.run.records import AccountRecord, CustomerRecord, Record, UserRecord, VerificationRecord

# How long somebody goes on asking where the machine is busy with other tests.
BUSY_S: Final = 30.0
PASSWORD: Final = "correct horse battery"
# argon2id of PASSWORD at the least cost that is accepted: tests make many users.
PASSWORD_HASH: Final = "$argon2id$v=19$m=8,t=1,p=1$dGVzdHNhbHR0ZXN0$ZU9w3qYyJX2PQpgBAo6CfWQSCZsFjVlBwUEpuTjdP8A"
_numbers = itertools.count(1)
_RUN: Final = secrets.token_hex(3)


@dataclass(frozen=True)
class Answer:
    """What came back: status, header fields (names in lower case), and the body's bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body as JSON; numbers with a point stay text, so that a test sees the decimals that were sent."""
        return json.loads(self.body, parse_float=str)

    @property
    def error(self) -> str | None:
        """The code of a problem, None for any other answer."""
        if not self.headers.get("content-type", "").startswith("application/problem+json"):
            return None
        return str(self.json["error"])

    def __repr__(self) -> str:
        return f"{self.status} {self.body[:400].decode('utf-8', 'replace')}"


def refusal(answer: Answer) -> tuple[int, str | None]:
    """Status and code of a problem."""
    return answer.status, answer.error


# What looks like an account at another bank; such a payment names its creditor unless a test says otherwise.
IBAN = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{10,30}")


class Api:
    """One address of the public API."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    def at(self, url: str) -> Api:
        """The same client for another address."""
        return Api(self._session, url)

    async def send(
        self,
        method: str,
        path: str,
        *,
        token: str | None = None,
        json_body: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request. `json_body` is encoded as JSON, `body` sent as it is, with a JSON content type unless named."""
        sent = dict(headers or {})
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        if json_body is not None:
            body = json.dumps(json_body).encode()
        skip = ["Content-Type"]
        if body is not None and not any(name.lower() == "content-type" for name in sent):
            sent["Content-Type"] = "application/json"
        # As it stands: the library would resolve an escaped ".." before sending it.
        url = URL(self.url + path, encoded=True) if "%" in path else self.url + path
        async with self._session.request(
            method, url, data=body, headers=sent, skip_auto_headers=skip, allow_redirects=False
        ) as response:
            content = await response.read()
            return Answer(response.status, {name.lower(): text for name, text in response.headers.items()}, content)

    async def login(self, username: str, password: str = PASSWORD) -> Answer:
        """Sign in; the answer as it came."""
        return await self.send("POST", "/auth/login", json_body={"username": username, "password": password})

    async def sign_in(self, username: str, password: str = PASSWORD) -> Client:
        """Sign in; a client with the token. Raises AssertionError when it is refused.

        Who is told 503, as on a busy machine, tries again, as users do.
        """
        answer = await self.login(username, password)
        ends_at = time.monotonic() + BUSY_S
        while answer.status == 503 and time.monotonic() < ends_at:
            await asyncio.sleep(0.5)
            answer = await self.login(username, password)
        assert answer.status == 200, answer
        return Client(self, answer.json["access_token"], answer.json["refresh_token"])


class Client:
    """A signed-in user."""

    def __init__(self, api: Api, token: str, refresh_token: str) -> None:
        self.api = api
        self.token = token
        self.refresh_token = refresh_token

    def at(self, url: str) -> Client:
        """The same user at another gateway."""
        return Client(self.api.at(url), self.token, self.refresh_token)

    async def get(self, path: str) -> Answer:
        return await self.api.send("GET", path, token=self.token)

    async def post(self, path: str, json_body: Any = None, *, headers: Mapping[str, str] | None = None) -> Answer:
        return await self.api.send("POST", path, token=self.token, json_body=json_body, headers=headers)

    async def confirm(self, body: Mapping[str, Any] | bytes, *, key: str | None) -> Answer:
        """POST /payment/confirm with this body and key; `key` None leaves the header out."""
        headers = {} if key is None else {"Idempotency-Key": key}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.api.send("POST", "/payment/confirm", token=self.token, body=raw, headers=headers)


@dataclass
class Customer:
    """A customer of a test's own, signed in, with accounts by currency."""

    customer_id: str
    username: str
    client: Client
    accounts: dict[str, str]
    notification: Notification = field(repr=False)

    @property
    def account(self) -> str:
        """The first account's number."""
        return next(iter(self.accounts.values()))

    def body(self, to_account: str, amount: Any = "100.00", **fields: Any) -> dict[str, Any]:
        """A payment's body with a fresh transaction_id; a field given as None is left out."""
        body = {
            "transaction_id": f"txn-{uuid.uuid4()}",
            "customer_id": self.customer_id,
            "amount": amount,
            "from_account": self.account,
            "to_account": to_account,
        }
        if IBAN.fullmatch(to_account):
            body["creditor"] = {"name": "Erika Musterfrau"}
        return {name: value for name, value in (body | fields).items() if value is not None}

    async def pay(self, to_account: str, amount: Any = "100.00", *, key: str | None = None, **fields: Any) -> Answer:
        """Pay under a fresh key unless one is given."""
        return await self.client.confirm(self.body(to_account, amount, **fields), key=key or new_key())

    async def has_paid(self, to_account: str, amount: Any = "100.00") -> str:
        """Pay, and go on asking under the same key while it is told 503 or 409; the transaction_id."""
        body, key = self.body(to_account, amount), new_key()
        answer = await self.client.confirm(body, key=key)
        ends_at = time.monotonic() + BUSY_S
        while answer.status in (409, 503) and time.monotonic() < ends_at:
            await asyncio.sleep(0.5)
            answer = await self.client.confirm(body, key=key)
        assert answer.status in (200, 202), answer
        return str(body["transaction_id"])

    async def payment(self, transaction_id: str) -> dict[str, Any]:
        """A payment as GET /payments/{transaction_id} tells it."""
        answer = await self.client.get(f"/payments/{transaction_id}")
        assert answer.status == 200, answer
        return dict(answer.json)

    async def balances(self, number: str | None = None) -> tuple[str, str, str]:
        """Posted, held and available of an account."""
        answer = await self.client.get(f"/accounts/{number or self.account}")
        assert answer.status == 200, answer
        return answer.json["posted"], answer.json["held"], answer.json["available"]

    async def otp(self, transaction_id: str) -> str:
        """The newest one-time password of a payment, from the demo channel."""
        query = FindDemoCode(transaction_id=transaction_id, customer_id=self.customer_id)
        (answer,) = await self.notification.find_demo_codes([query])
        assert not isinstance(answer, PayflowError), answer
        return answer.code


class Factory:
    """Makes customers that no other test knows."""

    def __init__(self, *, api: Api, services: LocalServices) -> None:
        self._api = api
        self._services = services

    async def customer(
        self,
        *,
        name: str = "Ada Testperson",
        country: str = "DE",
        is_verified: bool = True,
        phone: str | None = None,
        **balances: str,
    ) -> Customer:
        """A signed-in customer with an account for each currency given, `USD="1000.00"` by default."""
        label = f"{_RUN}{next(_numbers):05d}"
        customer_id, username = f"cust_{label}", f"user_{label}"
        accounts = {currency: f"T{label}{currency}" for currency in balances or {"USD": ""}}
        records: list[Record] = [
            CustomerRecord(
                customer_id=customer_id, name=name, country=country, email=f"{username}@example.org", phone=phone
            ),
            UserRecord(username=username, password_hash=PASSWORD_HASH, customer_id=customer_id),
        ]
        if is_verified:
            records.append(VerificationRecord(customer_id=customer_id, state=VerificationState.VERIFIED))
        for currency, number in accounts.items():
            opening = balances.get(currency, "1000.00")
            records.append(
                AccountRecord(number=number, customer_id=customer_id, currency=currency, opening_balance=opening)
            )
        report = await load_records(records=records, services=self._services, loaded_by="tests")
        assert report.failures == []
        return Customer(
            customer_id=customer_id,
            username=username,
            client=await self._api.sign_in(username),
            accounts=accounts,
            notification=self._services.client(Notification),
        )


def new_key() -> str:
    """A fresh idempotency key."""
    return str(uuid.uuid4())


async def eventually(look: Callable[[], Awaitable[Any]], *, seconds: float = 10.0, pause_s: float = 0.05) -> Any:
    """What `look` returns once it is true. Raises AssertionError with its last answer when that takes too long."""
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {seconds} s; last: {found!r}"
        await asyncio.sleep(pause_s)
