"""In-memory ports. Each passes the same suite as the real adapter in tests/ports."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.account import (
    AccountState,
    AccountView,
    CustomerState,
    CustomerView,
    EntryCursor,
    EntryLine,
    EntryPage,
    LedgerVerified,
    ListEntries,
    NewAccount,
    NewCustomer,
    Party,
)
from payflow.kernel.envelope import Event
from payflow.platform.ids import UuidV7
from payflow.services.account.domain import (
    HELD,
    Balance,
    Changes,
    Entry,
    Hold,
    Outcomes,
    Posting,
    Refusal,
    internal_number,
)
from tests.builders import NOON

_FIRST: Final = datetime.min.replace(tzinfo=UTC)
_LAST: Final = datetime.max.replace(tzinfo=UTC)


class _AccountRow:
    def __init__(self, account_id: UUID, number: str, customer_id: str, kind: str, currency: str) -> None:
        self.account_id = account_id
        self.number = number
        self.customer_id = customer_id
        self.kind = kind
        self.currency = currency
        self.state = AccountState.OPEN
        self.version = 1
        self.opened_at = NOON


class _Tables:
    def __init__(self) -> None:
        self.customers: dict[str, CustomerView] = {}
        self.customer_versions: dict[str, int] = {}
        self.accounts: dict[str, _AccountRow] = {}
        self.balances: dict[UUID, Balance] = {}
        self.entries: dict[UUID, Entry] = {}
        self.openings: list[Entry] = []
        self.postings: list[Posting] = []
        self.holds: dict[UUID, Hold] = {}
        self.refusals: dict[tuple[UUID, str], Refusal] = {}
        self.events: list[Event] = []


class FakeLedger:
    """One transaction over the in-memory tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    async def hold_accounts(self, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        return {id: self._tables.holds[id].account_id for id in payment_ids if id in self._tables.holds}

    async def lock_balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        found = {}
        for account_id in set(account_ids):
            balance = self._tables.balances.get(account_id)
            if balance is None:
                continue
            row = next(row for row in self._tables.accounts.values() if row.account_id == account_id)
            owner = self._tables.customers.get(row.customer_id)
            found[account_id] = copy.copy(balance)
            found[account_id].state = row.state
            found[account_id].is_owner_blocked = owner is not None and owner.state is CustomerState.BLOCKED
        return found

    async def outcomes(self, payment_ids: Sequence[UUID]) -> Outcomes:
        wanted = set(payment_ids)
        return Outcomes(
            entries={id: entry for id, entry in self._tables.entries.items() if id in wanted},
            holds={id: hold for id, hold in self._tables.holds.items() if id in wanted},
            refusals={key: refusal for key, refusal in self._tables.refusals.items() if key[0] in wanted},
        )

    async def save(self, changes: Changes) -> None:
        for entry in changes.entries:
            if entry.payment_id is None:
                self._tables.openings.append(entry)
                continue
            if entry.payment_id in self._tables.entries:
                raise RuntimeError("one_booking_per_payment")
            self._tables.entries[entry.payment_id] = entry
        self._tables.postings.extend(changes.postings)
        self._tables.holds.update(changes.holds)
        for refusal in changes.refusals:
            self._tables.refusals.setdefault((refusal.payment_id, refusal.step), refusal)
        for account_id, balance in changes.balances.items():
            if not balance.is_internal and balance.available_minor < 0:
                raise RuntimeError("customers_do_not_overdraw")
            version = self._tables.balances[account_id].version + 1
            self._tables.balances[account_id] = replace(balance, version=version, booked_at=balance.booked_at)

    async def insert_customers(self, customers: Sequence[NewCustomer], now: datetime) -> set[str]:
        inserted = set()
        for customer in customers:
            if customer.customer_id in self._tables.customers:
                continue
            inserted.add(customer.customer_id)
            self._tables.customer_versions[customer.customer_id] = 1
            self._tables.customers[customer.customer_id] = CustomerView(
                customer_id=customer.customer_id,
                name=customer.name,
                country=customer.country,
                email=customer.email,
                phone=customer.phone,
                state=CustomerState.ACTIVE,
                created_at=now,
            )
        return inserted

    async def insert_accounts(self, accounts: Sequence[tuple[UUID, NewAccount]], now: datetime) -> set[UUID]:
        inserted = set()
        for account_id, account in accounts:
            if account.number in self._tables.accounts:
                continue
            inserted.add(account_id)
            row = _AccountRow(account_id, account.number, account.customer_id, "customer", account.currency)
            row.opened_at = now
            _add(self._tables, row, is_internal=False)
        return inserted

    async def set_customer_state(self, customer_id: str, state: CustomerState) -> int | None:
        known = self._tables.customers.get(customer_id)
        if known is None:
            return None
        values = {name: getattr(known, name) for name in known.__struct_fields__}
        self._tables.customers[customer_id] = CustomerView(**{**values, "state": state})
        self._tables.customer_versions[customer_id] += 1
        for row in self._tables.accounts.values():
            if row.customer_id == customer_id:
                self._tables.balances[row.account_id].version += 1
        return self._tables.customer_versions[customer_id]

    async def set_account_state(self, number: str, state: AccountState) -> int | None:
        row = self._tables.accounts.get(number)
        if row is None or row.kind != "customer":
            return None
        row.state, row.version = state, row.version + 1
        self._tables.balances[row.account_id].version += 1
        return row.version

    async def append_events(self, events: Sequence[Event]) -> None:
        self._tables.events.extend(events)


def _add(tables: _Tables, row: _AccountRow, *, is_internal: bool) -> None:
    tables.accounts[row.number] = row
    tables.balances[row.account_id] = Balance(
        account_id=row.account_id,
        currency=row.currency,
        state=row.state,
        is_internal=is_internal,
        is_owner_blocked=False,
        posted_minor=0,
        held_minor=0,
        sequence=0,
    )


class FakeAccountStore:
    """The account service's database in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()
        self._ids = UuidV7()
        self.verifications: list[tuple[datetime, int]] = []
        self.is_being_verified = False

    @property
    def events(self) -> list[Event]:
        """What was appended and committed."""
        return self._tables.events

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeLedger]:
        async with self._lock:
            working = copy.deepcopy(self._tables)
            yield FakeLedger(working)
            self._tables = working

    async def balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        return await FakeLedger(self._tables).lock_balances(account_ids)

    async def book_whole(self, changes: Changes, *, balances: Sequence[Balance], payment_ids: Sequence[UUID]) -> bool:
        async with self.transaction() as ledger:
            stored = await ledger.lock_balances([balance.account_id for balance in balances])
            earlier = await ledger.outcomes(payment_ids)
            is_known = all(_is_still(stored[balance.account_id], balance, at=changes.at) for balance in balances)
            if not is_known or earlier.entries or earlier.holds or earlier.refusals:
                return False
            await ledger.save(replace(changes, balances={balance.account_id: balance for balance in balances}))
            return True

    async def internal_account(self, *, kind: str, currency: str, agent_bic: str | None = None) -> UUID:
        number = internal_number(kind=kind, currency=currency, agent_bic=agent_bic)
        if number not in self._tables.accounts:
            _add(self._tables, _AccountRow(self._ids.new(), number, "", kind, currency), is_internal=True)
        return self._tables.accounts[number].account_id

    async def parties(self, numbers: Sequence[str]) -> dict[str, Party]:
        found = {}
        for number in numbers:
            row = self._tables.accounts.get(number)
            if row is None or row.kind != "customer":
                continue
            owner = self._tables.customers[row.customer_id]
            found[number] = Party(
                account_id=row.account_id,
                number=number,
                customer_id=row.customer_id,
                name=owner.name,
                country=owner.country,
                currency=row.currency,
            )
        return found

    async def customers(self, customer_ids: Sequence[str]) -> dict[str, CustomerView]:
        return {id: self._tables.customers[id] for id in customer_ids if id in self._tables.customers}

    async def accounts(self, numbers: Sequence[str]) -> dict[str, AccountView]:
        rows = [self._tables.accounts.get(number) for number in numbers]
        return {row.number: self._view(row) for row in rows if row is not None and row.kind == "customer"}

    async def close_instants(self, instants: Mapping[str, datetime]) -> set[str]:
        for number, at in instants.items():
            row = self._tables.accounts[number]
            known = self._tables.balances[row.account_id]
            if row.opened_at <= at and (known.booked_at is None or known.booked_at <= at):
                self._tables.balances[row.account_id] = replace(known, booked_at=at + timedelta(microseconds=1))
        return set(instants)

    async def accounts_at(self, wanted: Sequence[tuple[str, datetime]]) -> dict[tuple[str, datetime], AccountView]:
        found = await self.accounts([number for number, _ in wanted])
        return {(number, at): self._as_of(found[number], at) for number, at in wanted if number in found}

    def _as_of(self, view: AccountView, at: datetime) -> AccountView:
        account_id = self._tables.accounts[view.number].account_id
        open_then = [
            hold.amount_minor
            for hold in self._tables.holds.values()
            if hold.account_id == account_id and hold.placed_at <= at and (hold.ended_at is None or hold.ended_at > at)
        ]
        return msgspec.structs.replace(
            view,
            as_of=at,
            posted_minor=self._posted(account_id, lambda booked_at: booked_at <= at),
            held_minor=sum(open_then),
        )

    async def accounts_of(self, customer_ids: Sequence[str]) -> dict[str, list[AccountView]]:
        found: dict[str, list[AccountView]] = {}
        for row in sorted(self._tables.accounts.values(), key=lambda row: row.number):
            if row.kind == "customer" and row.customer_id in customer_ids:
                found.setdefault(row.customer_id, []).append(self._view(row))
        return found

    async def entries(self, query: ListEntries) -> EntryPage:
        row = self._tables.accounts[query.number]
        begin, end = query.booked_from or _FIRST, query.booked_until or _LAST
        by_id = {entry.entry_id: entry for entry in (*self._tables.entries.values(), *self._tables.openings)}
        after = None if query.cursor is None else (query.cursor.booked_at, query.cursor.sequence)
        postings = [
            posting
            for posting in sorted(
                (posting for posting in self._tables.postings if posting.account_id == row.account_id),
                key=lambda posting: posting.sequence,
                reverse=not query.is_oldest_first,
            )
            if begin <= posting.booked_at < end
            if after is None
            or (
                ((posting.booked_at, posting.sequence) > after) == query.is_oldest_first
                and (posting.booked_at, posting.sequence) != after
            )
        ]
        lines = [
            EntryLine(
                sequence=posting.sequence,
                entry_id=posting.entry_id,
                payment_id=by_id[posting.entry_id].payment_id,
                kind=by_id[posting.entry_id].kind,
                amount_minor=posting.amount_minor,
                balance_minor=posting.balance_minor,
                currency=row.currency,
                booked_at=posting.booked_at,
            )
            for posting in postings[: query.limit]
        ]
        is_last = len(postings) <= query.limit
        return EntryPage(
            entries=lines,
            next_cursor=None if is_last else EntryCursor(lines[-1].booked_at, lines[-1].sequence),
            opening_minor=self._posted(row.account_id, lambda booked_at: booked_at < begin),
            closing_minor=self._posted(row.account_id, lambda booked_at: booked_at < end),
        )

    def _posted(self, account_id: UUID, is_wanted: Callable[[datetime], bool]) -> int:
        return sum(
            posting.amount_minor
            for posting in self._tables.postings
            if posting.account_id == account_id and is_wanted(posting.booked_at)
        )

    async def expired_holds(self, *, now: datetime, limit: int) -> list[UUID]:
        holds = [hold for hold in self._tables.holds.values() if hold.state == HELD and hold.expires_at is not None]
        expired = sorted((hold.expires_at, hold.payment_id) for hold in holds if now >= hold.expires_at)
        return [payment_id for _, payment_id in expired[:limit]]

    async def verify(self) -> LedgerVerified:
        sums: dict[UUID, int] = {}
        for posting in self._tables.postings:
            sums[posting.account_id] = sums.get(posting.account_id, 0) + posting.amount_minor
        broken = [
            f"account {id}" for id, balance in self._tables.balances.items() if balance.posted_minor != sums.get(id, 0)
        ]
        return LedgerVerified(
            accounts=len(self._tables.balances),
            entries=len(self._tables.entries) + len(self._tables.openings),
            postings=len(self._tables.postings),
            open_holds=sum(hold.state == HELD for hold in self._tables.holds.values()),
            broken=broken,
        )

    async def verify_aside(self) -> LedgerVerified | None:
        return None if self.is_being_verified else await self.verify()

    async def last_verification(self) -> tuple[datetime, int] | None:
        return self.verifications[-1] if self.verifications else None

    async def first_account_at(self) -> datetime | None:
        return min((row.opened_at for row in self._tables.accounts.values() if row.kind == "customer"), default=None)

    async def save_verification(self, found: LedgerVerified, *, began_at: datetime, verified_at: datetime) -> None:
        self.verifications.append((verified_at, len(found.broken)))

    async def make_partitions(self) -> int:
        return 0

    def _view(self, row: _AccountRow) -> AccountView:
        balance = self._tables.balances[row.account_id]
        return AccountView(
            number=row.number,
            customer_id=row.customer_id,
            currency=row.currency,
            state=row.state,
            posted_minor=balance.posted_minor,
            held_minor=balance.held_minor,
            opened_at=row.opened_at,
        )


def _is_still(stored: Balance, known: Balance, *, at: datetime) -> bool:
    """Whether a balance is as it was known, and no instant was closed that is not before this booking's."""
    booked_at = known.booked_at or at
    return stored.version == known.version and (stored.booked_at is None or stored.booked_at <= booked_at)
