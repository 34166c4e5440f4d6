"""Account's database in memory: many transactions at once, with row locks, and each reads what is committed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

from payflow.contracts.account import AccountState, CustomerState
from payflow.kernel.clock import Ids
from payflow.kernel.errors import UnknownOutcome
from payflow.platform.ids import UuidV7
from payflow.services.account.domain import HELD, RELEASED, Balance, Changes, Hold, Outcomes
from tests.fakes import FakeAccountStore, FakeLedger
from tests.simulation.doors import Door


class LedgerTables(FakeAccountStore):
    """The committed rows, and who has locked which. One of them is shared by all processes of account."""

    def __init__(self, ids: Ids | None = None) -> None:
        super().__init__()
        self._ids = self.ids = ids or UuidV7()
        self.locked_by: dict[UUID, object] = {}
        self.waiting: dict[UUID, list[tuple[Door, asyncio.Future[Any]]]] = {}
        self.rows_by_id: dict[UUID, Any] = {}
        self.on_release: Callable[[Hold], None] = lambda hold: None

    @property
    def rows(self) -> Any:
        """The tables themselves."""
        return self._tables

    def _row(self, account_id: UUID) -> Any:
        if len(self.rows_by_id) < len(self.rows.accounts):
            self.rows_by_id = {row.account_id: row for row in self.rows.accounts.values()}
        return self.rows_by_id[account_id]

    def balance(self, account_id: UUID) -> Balance | None:
        """A copy of a balance as it is committed."""
        known = self.rows.balances.get(account_id)
        if known is None:
            return None
        row = self._row(account_id)
        owner = self.rows.customers.get(row.customer_id)
        return Balance(
            account_id=account_id,
            currency=known.currency,
            state=row.state,
            is_internal=known.is_internal,
            is_owner_blocked=owner is not None and owner.state is CustomerState.BLOCKED,
            posted_minor=known.posted_minor,
            held_minor=known.held_minor,
            sequence=known.sequence,
            version=known.version,
            booked_at=known.booked_at,
        )

    async def lock(self, account_ids: Sequence[UUID], *, owner: object, door: Door) -> list[UUID]:
        """Lock rows in one order, waiting for those that others have locked; returns those newly locked.

        Whoever is interrupted while waiting has locked nothing more.
        """
        locked: list[UUID] = []
        try:
            for account_id in sorted(set(account_ids)):
                while (holder := self.locked_by.get(account_id)) is not None and holder is not owner:
                    free = door.promise()
                    self.waiting.setdefault(account_id, []).append((door, free))
                    await free
                if account_id not in self.locked_by:
                    self.locked_by[account_id] = owner
                    locked.append(account_id)
        except BaseException:
            self.unlock(locked)
            raise
        return locked

    def unlock(self, account_ids: Sequence[UUID]) -> None:
        """Free rows, and let everybody who waits for one of them try again."""
        for account_id in account_ids:
            del self.locked_by[account_id]
            for door, free in self.waiting.pop(account_id, ()):
                door.keep(free)

    def write(self, changes: Changes) -> None:
        """Make a batch's changes true, all of them; the constraints are those of the migrations."""
        rows = self.rows
        for entry in changes.entries:
            if entry.payment_id is not None and entry.payment_id in rows.entries:
                raise RuntimeError("one_booking_per_payment")
        for balance in changes.balances.values():
            if balance.held_minor < 0:
                raise RuntimeError("held_is_not_negative")
            if not balance.is_internal and balance.posted_minor - balance.held_minor < 0:
                raise RuntimeError("customers_do_not_overdraw")
        for entry in changes.entries:
            if entry.payment_id is None:
                rows.openings.append(entry)
            else:
                rows.entries[entry.payment_id] = entry
        rows.postings.extend(changes.postings)
        for hold in changes.holds.values():
            if hold.state == RELEASED:
                self.on_release(hold)
            rows.holds[hold.payment_id] = hold
        for refusal in changes.refusals:
            rows.refusals.setdefault((refusal.payment_id, refusal.step), refusal)
        for account_id, balance in changes.balances.items():
            known = rows.balances[account_id]
            known.posted_minor, known.held_minor = balance.posted_minor, balance.held_minor
            known.sequence, known.booked_at = balance.sequence, balance.booked_at
            known.version += 1

    def outcomes_of(self, payment_ids: Sequence[UUID]) -> Outcomes:
        """What is committed about these payments."""
        rows, outcomes = self.rows, Outcomes()
        for id in payment_ids:
            if id in rows.entries:
                outcomes.entries[id] = rows.entries[id]
            if id in rows.holds:
                outcomes.holds[id] = rows.holds[id]
            for step in ("book", "hold"):
                refusal = rows.refusals.get((id, step))
                if refusal is not None:
                    outcomes.refusals[id, step] = refusal
        return outcomes


class LedgerTransaction(FakeLedger):
    """One transaction: what it writes is there for others when it has committed.

    Customers and accounts are opened before a run, without faults, and written at once.
    """

    def __init__(self, tables: LedgerTables, door: Door) -> None:
        super().__init__(tables.rows)
        self._rows, self._door = tables, door
        self._locked: list[UUID] = []
        self._writes: list[Callable[[], None]] = []

    async def hold_accounts(self, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        await self._door.enter()
        return await super().hold_accounts(payment_ids)

    async def lock_balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        await self._door.enter()
        known = [account_id for account_id in account_ids if account_id in self._rows.rows.balances]
        self._locked += await self._rows.lock(known, owner=self, door=self._door)
        return {id: balance for id in set(known) if (balance := self._rows.balance(id)) is not None}

    async def outcomes(self, payment_ids: Sequence[UUID]) -> Outcomes:
        await self._door.enter()
        return self._rows.outcomes_of(payment_ids)

    async def save(self, changes: Changes) -> None:
        await self._door.enter()
        self._door.check_conflict()
        self._writes.append(lambda: self._rows.write(changes))

    async def set_account_state(self, number: str, state: AccountState) -> int | None:
        row = self._tables.accounts.get(number)
        if row is None or row.kind != "customer":
            return None
        await self._door.enter()

        def write() -> None:
            row.state, row.version = state, row.version + 1
            self._tables.balances[row.account_id].version += 1

        self._writes.append(write)
        return row.version + 1

    async def commit(self) -> None:
        """Make it true. Raises UnknownOutcome when nobody can tell whether it is."""
        await self._door.enter()
        if self._writes and self._door.is_lost():
            raise UnknownOutcome("the connection was lost during a commit")
        for write in self._writes:
            write()
        self.end()
        if self._writes:
            self._door.check_told()
        await self._door.leave()

    def end(self) -> None:
        """Free what is locked; what was not committed never was."""
        locked, self._locked = self._locked, []
        self._rows.unlock(locked)


class MemoryLedger(LedgerTables):
    """Account's store for one process, over tables that it shares with others."""

    def __init__(self, tables: LedgerTables, door: Door) -> None:
        super().__init__()
        self._shared, self._door = tables, door
        self._tables, self._ids = tables.rows, tables.ids

    def begin(self) -> LedgerTransaction:
        """A new transaction."""
        return LedgerTransaction(self._shared, self._door)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[LedgerTransaction]:
        transaction = self.begin()
        try:
            yield transaction
            await transaction.commit()
        finally:
            transaction.end()

    async def balances(self, account_ids: Sequence[UUID]) -> dict[UUID, Balance]:
        await self._door.enter()
        found = {id: balance for id in account_ids if (balance := self._shared.balance(id)) is not None}
        await self._door.leave()
        return found

    async def book_whole(self, changes: Changes, *, balances: Sequence[Balance], payment_ids: Sequence[UUID]) -> bool:
        """One statement: what it sees of the payments is from its beginning, the rows it waited for are as they are."""
        await self._door.enter()
        rows = self._shared.rows
        earlier = self._shared.outcomes_of(payment_ids)
        is_new = not (earlier.entries or earlier.holds or earlier.refusals)
        locked = await self._shared.lock([one.account_id for one in balances], owner=changes, door=self._door)
        try:
            is_whole = is_new and all(rows.balances[one.account_id].version == one.version for one in balances)
            if self._door.is_lost():
                raise UnknownOutcome("the connection was lost during a write")
            if is_whole:
                changes.balances = {balance.account_id: balance for balance in balances}
                self._shared.write(changes)
        finally:
            self._shared.unlock(locked)
        self._door.check_told()
        await self._door.leave()
        return is_whole

    async def parties(self, numbers: Sequence[str]) -> dict[str, Any]:
        await self._door.enter()
        return await super().parties(numbers)

    async def expired_holds(self, *, now: datetime, limit: int) -> list[UUID]:
        await self._door.enter()
        return await super().expired_holds(now=now, limit=limit)

    def open_holds(self) -> list[Hold]:
        """Holds that are neither captured nor released."""
        return [hold for hold in self.rows.holds.values() if hold.state == HELD]
