"""The run's customers, users and accounts in a running instance, and their tokens from /auth/login."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from uuid import NAMESPACE_URL, uuid5

import aiohttp
import argon2
import msgspec

from payflow.contracts.account import Account, NewAccount, NewCustomer, VerifyLedger
from payflow.contracts.gateway import Gateway, NewUser, Role
from payflow.contracts.kyc import Kyc, RecordVerification, VerificationLevel, VerificationState
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError
from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.identity import Signer
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.registry import find
from payflow.run.secrets import COMMAND_LINE
from payflow_dev.bench.population import CURRENCY, OPENING_BALANCE_MINOR, Customer
from payflow_dev.bench.target import Target

C = TypeVar("C")
T = TypeVar("T")

_LOAD_BATCH: Final = 200
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


@dataclass(frozen=True, slots=True)
class Services:
    """The services' private operations, as the command line may call them."""

    clients: RpcClients
    instance: Instance

    def of(self, contract: type[C], service: str) -> C:
        """A client of one service of the instance."""
        row = find(service)
        assert row is not None
        return self.clients.connect(contract, self.instance.service_url(row))


@asynccontextmanager
async def services_of(instance: Instance) -> AsyncIterator[Services]:
    """Clients with the identity that whoever may read the data directory has."""
    signer = Signer.load(service=COMMAND_LINE, directory=instance.service_keys_dir)
    clients = RpcClients(signer=signer, queue_max=100_000)
    try:
        yield Services(clients, instance)
    finally:
        await clients.close()


async def load_records(*, instance: Instance, customers: Sequence[Customer], password: str) -> None:
    """Make the customers, verified, with their accounts and users. Raises StartError where a service refuses."""
    # One hash for all of them: hashing is what the sign-ins cost, not what this is about.
    password_hash = await asyncio.to_thread(argon2.PasswordHasher().hash, password)
    async with services_of(instance) as services:
        account, gateway = services.of(Account, "account"), services.of(Gateway, "gateway")
        kyc = services.of(Kyc, "kyc")
        await _in_batches(account.create_customers, [_customer(each) for each in customers])
        await _in_batches(
            account.create_accounts, [opening for customer in customers for opening in _accounts(customer)]
        )
        await _in_batches(kyc.record, [_verification(each) for each in customers])
        await _in_batches(gateway.create_users, [_user(each, password_hash) for each in customers])


def _customer(customer: Customer) -> NewCustomer:
    return NewCustomer(customer_id=customer.customer_id, name=customer.name, country="NL")


def _accounts(customer: Customer) -> list[NewAccount]:
    return [
        NewAccount(
            number=number,
            customer_id=customer.customer_id,
            currency=CURRENCY,
            opening_balance_minor=OPENING_BALANCE_MINOR,
        )
        for number in customer.accounts
    ]


def _verification(customer: Customer) -> RecordVerification:
    return RecordVerification(
        command_id=uuid5(NAMESPACE_URL, f"payflow-bench/{customer.customer_id}"),
        customer_id=customer.customer_id,
        state=VerificationState.VERIFIED,
        level=VerificationLevel.FULL,
        reason="customer of a bench run",
        recorded_by="bench",
    )


def _user(customer: Customer, password_hash: str) -> NewUser:
    return NewUser(
        username=customer.username,
        role=Role.CUSTOMER,
        password_hash=password_hash,
        customer_id=customer.customer_id,
    )


async def _in_batches(call: Callable[[list[Any]], Awaitable[Answers[Any]]], commands: Sequence[Any]) -> None:
    for start in range(0, len(commands), _LOAD_BATCH):
        for answer in await call(list(commands[start : start + _LOAD_BATCH])):
            if isinstance(answer, PayflowError):
                raise StartError(f"The bench's records cannot be made: {answer.code} {answer.detail}")


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
    if response.status != 200:
        raise StartError(
            f"Signing in as {username} was refused: {response.status} {body[:200].decode('utf-8', 'replace')}"
        )
    try:
        return msgspec.json.decode(body, type=_Session)
    except msgspec.DecodeError as error:
        raise StartError(f"The answer to signing in as {username} cannot be read: {error}.") from error


async def broken_ledger_rules(instance: Instance) -> list[str]:
    """What the account service finds when it recomputes the ledger from its postings; empty when it is whole."""
    async with services_of(instance) as services:
        (answer,) = await services.of(Account, "account").verify_ledger([VerifyLedger()])
    if isinstance(answer, PayflowError):
        return [f"the ledger could not be verified: {answer.code} {answer.detail}"]
    return answer.broken
