"""The gateway's ports in memory, the services behind it as far as it asks them, and a client of its public side."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec

from payflow.contracts.account import (
    Account,
    AccountList,
    AccountNotFound,
    AccountState,
    AccountView,
    EntryCursor,
    EntryLine,
    EntryPage,
    GetAccount,
    ListAccounts,
    ListEntries,
)
from payflow.contracts.bulk import Bulk
from payflow.contracts.confirm import (
    AwaitEnd,
    CancelPayment,
    Confirm,
    ConfirmPayment,
    GetPayment,
    ListPayments,
    PaymentHistory,
    PaymentNotFound,
    PaymentPage,
    PaymentState,
    PaymentView,
    SendCode,
    TransitionView,
)
from payflow.contracts.gateway import Gateway, NewUser, Role
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import Money
from payflow.platform.clock import SystemClock
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.ids import UuidV7
from payflow.platform.rpc import in_process
from payflow.platform.valkey import connect_valkey
from payflow.services.gateway.addresses import ClientAddresses, read_networks
from payflow.services.gateway.api import FAILURES_NOTED, GatewayApi, Parts
from payflow.services.gateway.app import BOUNDS_OWN_BODY, GatewaySettings, public_app
from payflow.services.gateway.domain.limits import Limit
from payflow.services.gateway.domain.sessions import Lifetimes, NewSession, RefreshToken, Revocation
from payflow.services.gateway.domain.users import User, name_key
from payflow.services.gateway.gate import Gate, Limits
from payflow.services.gateway.guard import VALKEY_TIMEOUT_S, Guard
from payflow.services.gateway.keys import FileKeyRing
from payflow.services.gateway.passwords import ArgonPasswords
from payflow.services.gateway.ports import KnownRevocations, Store
from payflow.services.gateway.routes.services import Services
from payflow.services.gateway.tokens import JwtAccessTokens
from tests.builders import NOON, new_id
from tests.fakes_bulk import FakeBulk
from tests.shared_routes import shared_routes

NOWHERE = "unix:///nonexistent/valkey.sock"


@dataclass
class _Session:
    session: NewSession
    ended_at: datetime | None = None


@dataclass
class _Tables:
    users: dict[str, User] = field(default_factory=dict)
    versions: dict[UUID, int] = field(default_factory=dict)
    sessions: dict[UUID, _Session] = field(default_factory=dict)
    tokens: dict[bytes, tuple[UUID, datetime | None]] = field(default_factory=dict)
    revoked: dict[str, datetime] = field(default_factory=dict)
    number: int = 0
    events: list[Event] = field(default_factory=list)


class FakeGatewayTransaction:
    """One transaction over the in-memory tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def _user(self, user_id: UUID) -> User:
        return next(user for user in self._tables.users.values() if user.user_id == user_id)

    async def insert_users(self, users: Sequence[User]) -> set[UUID]:
        inserted = set()
        for user in users:
            if name_key(user.username) not in self._tables.users:
                self._tables.users[name_key(user.username)] = user
                self._tables.versions[user.user_id] = 1
                inserted.add(user.user_id)
        return inserted

    async def set_enabled(self, user_ids: Sequence[UUID], *, is_enabled: bool) -> dict[UUID, int]:
        changed = {}
        for user_id in user_ids:
            user = self._user(user_id)
            if user.is_enabled != is_enabled:
                self._tables.users[name_key(user.username)] = msgspec.structs.replace(user, is_enabled=is_enabled)
                self._tables.versions[user_id] += 1
                changed[user_id] = self._tables.versions[user_id]
        return changed

    async def open_sessions(self, sessions: Sequence[NewSession]) -> set[UUID]:
        opened = [session for session in sessions if self._user(session.user_id).is_enabled]
        for session in opened:
            self._tables.sessions[session.session_id] = _Session(session)
            self._tables.tokens[session.token_sha256] = (session.session_id, None)
        return {session.session_id for session in opened}

    async def lock_refresh_tokens(self, digests: Sequence[bytes]) -> dict[bytes, RefreshToken]:
        found = {}
        for digest in digests:
            if digest in self._tables.tokens:
                session_id, used_at = self._tables.tokens[digest]
                row = self._tables.sessions[session_id]
                found[digest] = RefreshToken(
                    token_sha256=digest,
                    session_id=session_id,
                    used_at=used_at,
                    session_expires_at=row.session.expires_at,
                    session_ended_at=row.ended_at,
                    user=self._user(row.session.user_id),
                )
        return found

    async def rotate(self, *, used: Sequence[bytes], fresh: Sequence[tuple[bytes, UUID]], now: datetime) -> None:
        for digest in used:
            self._tables.tokens[digest] = (self._tables.tokens[digest][0], now)
        for digest, session_id in fresh:
            self._tables.tokens[digest] = (session_id, None)

    async def end_sessions(self, sessions: Sequence[tuple[UUID, str]], now: datetime) -> set[UUID]:
        ended = set()
        for session_id, _ in sessions:
            row = self._tables.sessions.get(session_id)
            if row is not None and row.ended_at is None:
                row.ended_at = now
                ended.add(session_id)
        return ended

    async def open_sessions_of(self, user_ids: Sequence[UUID], *, expiring_after: datetime) -> list[UUID]:
        return [
            session_id
            for session_id, row in self._tables.sessions.items()
            if row.session.user_id in user_ids and row.ended_at is None and row.session.expires_at > expiring_after
        ]

    async def revoke(self, revocations: Sequence[Revocation], now: datetime) -> int:
        self._tables.number += 1
        for revocation in revocations:
            known = self._tables.revoked.get(revocation.id, revocation.ends_at)
            self._tables.revoked[revocation.id] = max(known, revocation.ends_at)
        return self._tables.number

    async def append_events(self, events: Sequence[Event]) -> None:
        self._tables.events.extend(events)


class FakeGatewayStore:
    """The gateway's database in memory: one transaction at a time, all or nothing. `failure` is raised by every read
    and write while it is set."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()
        self.failure: PayflowError | None = None

    @property
    def events(self) -> list[Event]:
        """What was appended and committed."""
        return self._tables.events

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeGatewayTransaction]:
        self._check()
        async with self._lock:
            working = copy.deepcopy(self._tables)
            yield FakeGatewayTransaction(working)
            self._tables = working

    async def has_users(self) -> bool:
        self._check()
        return bool(self._tables.users)

    async def users(self, usernames: Sequence[str]) -> dict[str, User]:
        self._check()
        return {name: self._tables.users[name] for name in usernames if name in self._tables.users}

    async def users_page(self, *, after: str | None, limit: int) -> list[User]:
        self._check()
        names = sorted(name for name in self._tables.users if after is None or name > name_key(after))
        return [self._tables.users[name] for name in names[:limit]]

    async def revoked_among(self, ids: Sequence[str]) -> set[str]:
        self._check()
        return {id_ for id_ in ids if id_ in self._tables.revoked}

    async def revocations(self, now: datetime) -> KnownRevocations:
        self._check()
        ends = {id_: end for id_, end in self._tables.revoked.items() if end > now}
        return KnownRevocations(number=self._tables.number, ends=ends)

    async def revocation_number(self) -> int:
        self._check()
        return self._tables.number

    async def forget(self, *, revoked_before: datetime, expired_before: datetime) -> None:
        self._check()
        tables = self._tables
        tables.revoked = {id_: end for id_, end in tables.revoked.items() if end >= revoked_before}
        gone = {id_ for id_, row in tables.sessions.items() if row.session.expires_at < expired_before}
        tables.sessions = {id_: row for id_, row in tables.sessions.items() if id_ not in gone}
        tables.tokens = {digest: row for digest, row in tables.tokens.items() if row[0] not in gone}


class FakePasswords:
    """Passwords that cost nothing: the hash is the password behind a mark. Counts verifications."""

    def __init__(self) -> None:
        self.verified = 0

    async def hash(self, password: str) -> str:
        return f"$argon2id${password}"

    async def verify(self, *, password: str, password_hash: str | None) -> bool:
        self.verified += 1
        return password_hash == f"$argon2id${password}"


class FakeConfirm:
    """Payments in memory. `outcome` decides what becomes of a new one; one key has one payment."""

    def __init__(self) -> None:
        self.commands: list[ConfirmPayment] = []
        self.waits: list[AwaitEnd] = []
        self.payments: dict[tuple[str, str], PaymentView] = {}
        self.transitions: dict[UUID, list[TransitionView]] = {}
        self.outcome = PaymentState.COMPLETED
        self.failure: PayflowError | None = None
        self.changes: dict[str, Any] = {}
        self.later: PaymentState | None = None

    async def confirm(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]:
        self.commands += commands
        if self.failure is not None:
            return [self.failure for _ in commands]
        return [self._payment(command) for command in commands]

    async def confirm_with_otp(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]:
        return await self.confirm(commands)

    async def send_codes(self, commands: list[SendCode]) -> Answers[PaymentView]:
        by_id = {payment.payment_id: payment for payment in self.payments.values()}
        return [by_id.get(command.payment_id, PaymentNotFound()) for command in commands]

    def _payment(self, command: ConfirmPayment) -> PaymentView:
        place = (command.customer_id, command.transaction_id)
        if place not in self.payments:
            values: dict[str, Any] = {
                "transaction_id": command.transaction_id,
                "customer_id": command.customer_id,
                "amount": command.amount,
                "amount_minor": Money.from_decimal(command.amount, "USD").minor_units,
                "trace_id": command.traceparent[3:35],
                "debtor_account": command.debtor_account,
                "creditor_account": command.creditor_account,
                "execute_at": command.execute_at,
                **self.changes,
            }
            payment = a_payment(state=self.outcome, **values)
            self.payments[place] = payment
            self.transitions[payment.payment_id] = [
                TransitionView(version=1, source=None, target=PaymentState.RECEIVED, at=NOON, reason=None),
                TransitionView(version=2, source=PaymentState.RECEIVED, target=payment.state, at=NOON, reason=None),
            ]
        return self.payments[place]

    def move(self, transaction_id: str, target: PaymentState) -> None:
        """Let a payment take a step."""
        for place, payment in self.payments.items():
            if place[1] == transaction_id:
                moved = msgspec.structs.replace(payment, state=target, version=payment.version + 1)
                self.payments[place] = moved
                step = TransitionView(version=moved.version, source=payment.state, target=target, at=NOON, reason=None)
                self.transitions[payment.payment_id].append(step)

    def _find(self, customer_id: str | None, transaction_id: str) -> PaymentView | PayflowError:
        return self.payments.get((customer_id or "", transaction_id)) or PaymentNotFound()

    async def await_end(self, queries: list[AwaitEnd]) -> Answers[PaymentView]:
        self.waits += queries
        by_id = {payment.payment_id: payment for payment in self.payments.values()}
        if self.later is not None:
            for query in queries:
                self.move(by_id[query.payment_id].transaction_id, self.later)
            by_id = {payment.payment_id: payment for payment in self.payments.values()}
        return [by_id[query.payment_id] for query in queries]

    async def get(self, queries: list[GetPayment]) -> Answers[PaymentView]:
        return [self._find(query.customer_id, query.transaction_id) for query in queries]

    async def history(self, queries: list[GetPayment]) -> Answers[PaymentHistory]:
        found = [self._find(query.customer_id, query.transaction_id) for query in queries]
        return [
            PaymentHistory(payment=payment, transitions=self.transitions[payment.payment_id])
            if isinstance(payment, PaymentView)
            else payment
            for payment in found
        ]

    async def list_payments(self, queries: list[ListPayments]) -> Answers[PaymentPage]:
        pages: Answers[PaymentPage] = []
        for query in queries:
            newest_first = [
                payment
                for payment in reversed(self.payments.values())
                if payment.customer_id == query.customer_id and query.state in (None, payment.state)
            ]
            ids = [payment.payment_id for payment in newest_first]
            start = 0 if query.cursor is None else ids.index(query.cursor) + 1
            page = newest_first[start : start + query.limit]
            is_last = start + query.limit >= len(newest_first)
            pages.append(PaymentPage(payments=page, next_cursor=None if is_last else page[-1].payment_id))
        return pages

    async def cancel(self, commands: list[CancelPayment]) -> Answers[PaymentView]:
        for command in commands:
            self.move(command.transaction_id, PaymentState.CANCELLED)
        return [self._find(command.customer_id, command.transaction_id) for command in commands]

    async def decide_review(self, commands: list[Any]) -> Answers[PaymentView]:
        raise NotImplementedError

    async def record_bank_answer(self, commands: list[Any]) -> Answers[PaymentView]:
        raise NotImplementedError


class FakeAccount:
    """Accounts in memory, as far as the gateway asks."""

    def __init__(self) -> None:
        self.accounts: dict[str, AccountView] = {}
        self.entries: dict[str, list[EntryLine]] = {}

    def __getattr__(self, name: str) -> Any:
        async def not_asked(items: list[Any]) -> list[Any]:
            raise NotImplementedError(name)

        return not_asked

    def open(self, number: str, customer_id: str, *, posted: int = 0, held: int = 0, currency: str = "USD") -> None:
        """Open an account with these balances."""
        self.accounts[number] = AccountView(
            number=number,
            customer_id=customer_id,
            currency=currency,
            state=AccountState.OPEN,
            posted_minor=posted,
            held_minor=held,
            opened_at=NOON,
        )

    async def get_accounts(self, queries: list[GetAccount]) -> Answers[AccountView]:
        found = [self.accounts.get(query.number) for query in queries]
        return [
            account if account is not None and query.customer_id in (None, account.customer_id) else AccountNotFound()
            for query, account in zip(queries, found, strict=True)
        ]

    async def list_accounts(self, queries: list[ListAccounts]) -> Answers[AccountList]:
        return [
            AccountList(accounts=[row for row in self.accounts.values() if row.customer_id == query.customer_id])
            for query in queries
        ]

    async def list_entries(self, queries: list[ListEntries]) -> Answers[EntryPage]:
        pages: Answers[EntryPage] = []
        for query in queries:
            lines = [
                line
                for line in reversed(self.entries.get(query.number, []))
                if query.cursor is None
                or (line.booked_at, line.sequence) < (query.cursor.booked_at, query.cursor.sequence)
            ]
            page = lines[: query.limit]
            is_last = len(lines) <= query.limit
            pages.append(
                EntryPage(
                    entries=page,
                    opening_minor=lines[-1].balance_minor - lines[-1].amount_minor if lines else 0,
                    closing_minor=lines[0].balance_minor if lines else 0,
                    next_cursor=None if is_last else EntryCursor(page[-1].booked_at, page[-1].sequence),
                )
            )
        return pages


def a_payment(*, state: PaymentState = PaymentState.COMPLETED, **changes: Any) -> PaymentView:
    """A payment of 1,000.00 USD in this state."""
    values: dict[str, Any] = {
        "payment_id": new_id(),
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
        "state": state,
        "version": 2,
        "amount": "1000.00",
        "amount_minor": 100_000,
        "currency": "USD",
        "debtor_account": "ACC001",
        "creditor_account": "ACC002",
        "risk_level": "LOW",
        "reference": "PF-0001" if state is PaymentState.COMPLETED else None,
        "reason": None,
        "error_code": "INSUFFICIENT_FUNDS" if state is PaymentState.REJECTED else None,
        "error_detail": "The available balance does not cover it." if state is PaymentState.REJECTED else None,
        "received_at": NOON,
        "updated_at": NOON,
        "completed_at": NOON if state is PaymentState.COMPLETED else None,
        "expires_at": NOON + timedelta(minutes=15) if state is PaymentState.AWAITING_OTP else None,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    return PaymentView(**{**values, **changes})


@dataclass
class Reply:
    """An answer as a client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """Talks ASGI to an application, as one address."""

    def __init__(self, app: Any, *, address: str = "192.0.2.1") -> None:
        self._app = app
        self._address = address

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        token: str | None = None,
        key: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        address: str | None = None,
        then: Literal["end", "gone", "silence"] = "end",
    ) -> Reply:
        """One request with its whole answer. A body that is no bytes is sent as JSON.

        `then`: what comes after the body; with anything but its end it is cut, and a client that is gone hears nothing.
        """
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        sent = [(name.lower().encode(), value.encode()) for name, value in headers]
        names = {name for name, _ in sent}
        if body is not None and b"content-type" not in names:
            sent.append((b"content-type", b"application/json"))
        if token is not None:
            sent.append((b"authorization", f"Bearer {token}".encode()))
        if key is not None:
            sent.append((b"idempotency-key", key.encode()))
        if b"content-length" not in names:
            sent.append((b"content-length", str(len(raw) + (then != "end")).encode()))
        scope = self._scope(method, path, sent, address)
        messages: list[Any] = []
        parts: list[Any] = [{"type": "http.request", "body": raw, "more_body": then != "end"}]
        inbox = iter([*parts, {"type": "http.disconnect"}] if then == "gone" else parts)

        async def receive() -> Any:
            message = next(inbox, None)
            if message is None:
                await asyncio.Event().wait()
            return message

        async def send(message: Any) -> None:
            messages.append(message)

        await self._app(scope, receive, send)
        if not messages:
            return Reply(0, {}, b"")
        start = messages[0]
        content = b"".join(message.get("body", b"") for message in messages[1:])
        return Reply(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content)

    def _scope(self, method: str, path: str, headers: list[tuple[bytes, bytes]], address: str | None) -> Any:
        path, _, query = path.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": (address or self._address, 40000),
            "server": ("127.0.0.1", 8080),
            "state": {},
        }


GENEROUS = Limits(
    per_ip=Limit("ip", 10_000, 900),
    per_user=Limit("user", 10_000, 900),
    login_per_ip=Limit("login", 10_000, 900),
    callbacks_per_ip=Limit("callbacks", 10_000, 900),
)
HOUR_AND_DAY = Lifetimes(access=timedelta(hours=1), session=timedelta(days=1))


class GatewayWorld:
    """A gateway with everything behind it in memory; `store` and `valkey_url` may be real."""

    def __init__(
        self,
        keys_dir: Path,
        *,
        store: Store | None = None,
        valkey_url: str = NOWHERE,
        generation: str | None = None,
        limits: Limits = GENEROUS,
        trusted_proxies: str = "",
        confirm: FakeConfirm | None = None,
        real_passwords: bool = False,
        failures_noted: Limit = FAILURES_NOTED,
        look_every_s: float = 0.05,
        valkey_timeout_s: float = VALKEY_TIMEOUT_S,
        lifetimes: Lifetimes = HOUR_AND_DAY,
        clock: Clock | None = None,
    ) -> None:
        self.store: Any = store or FakeGatewayStore()
        self.valkey = connect_valkey(valkey_url)
        self.clock = clock or SystemClock()
        self.passwords: Any = ArgonPasswords() if real_passwords else FakePasswords()
        self.lifetimes = lifetimes
        self.keys = FileKeyRing.open(keys_dir, token_lifetime=self.lifetimes.access, now=self.clock.now())
        self.tokens = JwtAccessTokens(keys=self.keys, issuer="payflow", audience="payflow-api")
        self.guard = Guard(
            valkey=self.valkey,
            store=self.store,
            generation=generation or uuid4().hex,
            now=self.clock.now,
            look_every_s=look_every_s,
            valkey_timeout_s=valkey_timeout_s,
        )
        self.secrets = 0
        self.api = GatewayApi(
            Parts(
                store=self.store,
                passwords=self.passwords,
                tokens=self.tokens,
                revocations=self.guard,
                keys=self.keys,
                lifetimes=self.lifetimes,
                clock=self.clock,
                ids=UuidV7(),
                new_secret=lambda: uuid4().hex + uuid4().hex,
            ),
            failures_noted=failures_noted,
        )
        self.cli: Gateway = in_process(Gateway, self.api, caller="cli")
        self.confirm = confirm or FakeConfirm()
        self.account = FakeAccount()
        self.bulk = FakeBulk(self.clock)
        self.gate = Gate(
            tokens=self.tokens,
            guard=self.guard,
            limits=limits,
            addresses=ClientAddresses(read_networks(trusted_proxies)),
        )
        services = Services(
            confirm=in_process(Confirm, self.confirm, caller="gateway"),
            account=in_process(Account, self.account, caller="gateway"),
            gateway=self.api,
            gate=self.gate,
            others={Bulk: in_process(Bulk, self.bulk, caller="gateway")},
        )
        self.serve(services, GatewaySettings(token_keys_dir=str(keys_dir), bank_wait_s=2.0))

    def serve(self, services: Services, settings: GatewaySettings) -> None:
        """Answer requests with these services."""
        app = public_app(settings=settings, gate=self.gate, services=services, keys=self.keys, routes_of=shared_routes)
        self.app = EdgeLayer(app, service="gateway", public=True, bounds_own_body=BOUNDS_OWN_BODY)
        self.client = Client(self.app)

    async def user(
        self,
        username: str = "demo",
        *,
        role: Role = Role.CUSTOMER,
        customer_id: str | None = None,
        password: str = "password123",
    ) -> None:
        """A user who can sign in; a customer is cust_001 unless said otherwise."""
        command = NewUser(
            username=username,
            role=role,
            password=password,
            customer_id=customer_id or ("cust_001" if role is Role.CUSTOMER else None),
        )
        (made,) = await self.cli.create_users([command])
        assert not isinstance(made, PayflowError), made

    async def sign_in(self, username: str = "demo", password: str = "password123") -> Any:
        """The tokens of a new session."""
        reply = await self.client.send("POST", "/auth/login", body={"username": username, "password": password})
        assert reply.status == 200, reply.body
        return reply.json

    async def token(self, username: str = "demo", **changes: Any) -> str:
        """The access token of a user made for it."""
        await self.user(username, **changes)
        token: str = (await self.sign_in(username))["access_token"]
        return token


def a_payment_body(**changes: Any) -> dict[str, Any]:
    """A whole body of `POST /payment/confirm`; None takes a field out."""
    body: dict[str, Any] = {
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
        "amount": "1000.00",
        "from_account": "ACC001",
        "to_account": "ACC002",
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}
