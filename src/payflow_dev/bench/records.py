"""The run's customers, users and accounts in a running instance, and their tokens from /auth/login."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp
import argon2
import msgspec

from payflow.kernel.money import format_minor
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.loading import load_records
from payflow.run.local_rpc import local_services
from payflow.run.records import AccountRecord, CustomerRecord, Record, UserRecord, VerificationRecord
from payflow.services.gateway.passwords import LANES, MEMORY_KIB, PASSES
from payflow_dev.bench.population import CURRENCY, OPENING_BALANCE_MINOR, Customer
from payflow_dev.bench.target import LIMITS, Target

# The gateway hashes in two threads and refuses what its queue cannot take.
_LOGINS_AT_ONCE: Final = 4
_LOGIN_TIMEOUT_S: Final = 30.0
_TOKEN_MARGIN_S: Final = 60.0


class _Session(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """One access token per customer, and when (time.monotonic) the first of them ends."""

    values: list[str]
    ends_at: float

    def are_good_for(self, seconds: float) -> bool:
        """Whether none of them ends within so many seconds."""
        return time.monotonic() + seconds + _TOKEN_MARGIN_S < self.ends_at


async def make_records(*, instance: Instance, customers: Sequence[Customer], password: str) -> None:
    """Make the customers, verified, with their accounts and users. Raises StartError where a service refuses one."""
    password_hash = await asyncio.to_thread(_hash, password)
    records = [record for customer in customers for record in _records_of(customer, password_hash)]
    async with local_services(instance) as services:
        report = await load_records(records=records, services=services, loaded_by="bench")
    if report.failures:
        raise StartError(f"The bench's records cannot be made: {report.failures[0]}")


def _hash(password: str) -> str:
    """One hash for all users, at the gateway's own cost: what a sign-in takes is no part of the measurement."""
    hasher = argon2.PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
    return hasher.hash(password)


def _records_of(customer: Customer, password_hash: str) -> list[Record]:
    opening = format_minor(OPENING_BALANCE_MINOR, CURRENCY)
    customer_id = customer.customer_id
    return [
        CustomerRecord(customer_id=customer_id, name=customer.name, country="NL"),
        VerificationRecord(customer_id=customer_id, reason="customer of a bench run"),
        UserRecord(username=customer.username, password_hash=password_hash, customer_id=customer_id),
        *(
            AccountRecord(number=number, customer_id=customer_id, currency=CURRENCY, opening_balance=opening)
            for number in customer.accounts
        ),
    ]


def new_password() -> str:
    """A password for the run's users."""
    return secrets.token_urlsafe(18)


async def sign_in(*, target: Target, usernames: Sequence[str], password: str, on_each: Callable[[], None]) -> Tokens:
    """An access token for each user through the public address. Raises StartError where one is refused."""
    began_at = time.monotonic()
    gate = asyncio.Semaphore(_LOGINS_AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=_LOGIN_TIMEOUT_S)
    async with aiohttp.ClientSession(f"http://{target.authority}", timeout=timeout) as session:

        async def one(username: str) -> _Session:
            async with gate:
                opened = await _sign_in(session, username=username, password=password)
                on_each()
                return opened

        sessions = await asyncio.gather(*(one(username) for username in usernames))
    shortest_s = min(each.expires_in for each in sessions)
    return Tokens(values=[each.access_token for each in sessions], ends_at=began_at + shortest_s)


async def _sign_in(session: aiohttp.ClientSession, *, username: str, password: str) -> _Session:
    try:
        async with session.post("/auth/login", json={"username": username, "password": password}) as response:
            body = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise StartError(f"Signing in as {username} failed: {error or 'no answer in time'}.") from error
    if response.status == 429:
        raise StartError(f"The instance limits requests as in everyday use: start it with {_raised_limits()}.")
    if response.status != 200:
        raise StartError(
            f"Signing in as {username} was refused: {response.status} {body[:200].decode('utf-8', 'replace')}"
        )
    try:
        return msgspec.json.decode(body, type=_Session)
    except msgspec.DecodeError as error:
        raise StartError(f"The answer to signing in as {username} cannot be read: {error}.") from error


def _raised_limits() -> str:
    return " ".join(f"{name}={value}" for name, value in LIMITS.items())
