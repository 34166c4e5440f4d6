"""Returns in confirm's database, in memory, with the constraints of the migration."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Final
from uuid import UUID

from payflow.contracts.returns import ListReturns, ReturnState
from payflow.kernel.errors import UnknownOutcome
from payflow.services.confirm.domain import RETURN_REFUSED, ReturnPayment, ReturnStep
from tests.simulation.doors import Door
from tests.simulation.weather import Seen

# Steps, a return's last field, are not kept in its row.
_COLUMNS: Final = [field.name for field in fields(ReturnPayment)]
if _COLUMNS[-1] != "steps":
    raise RuntimeError("a return has other fields than this store knows")
_row_of: Final = attrgetter(*_COLUMNS[:-1])


def copy_of(made: ReturnPayment) -> ReturnPayment:
    """The return as it is stored and read again."""
    return ReturnPayment(*_row_of(made))


def _seen(made: ReturnPayment) -> Seen:
    return Seen(made.return_id, made.fencing_token, f"return {made.state}")


class ReturnTables:
    """The committed rows, shared by all processes of confirm."""

    def __init__(self) -> None:
        self.returns: dict[UUID, ReturnPayment] = {}
        self.by_key: dict[tuple[str, str], UUID] = {}
        self.unfinished: dict[UUID, ReturnPayment] = {}
        self.steps: dict[UUID, list[ReturnStep]] = {}
        self.originals: dict[UUID, int] = {}
        self.taken: dict[UUID, int] = {}
        self.returned: dict[UUID, int] = {}
        self.events: list[tuple[str, UUID, int]] = []

    def take(self, made: ReturnPayment, *, original_minor: int, taken_minor: int) -> bool:
        """Take its amount of the original, if what is taken still is what it was decided on."""
        self.originals.setdefault(made.payment_id, original_minor)
        if self.taken.setdefault(made.payment_id, 0) != taken_minor:
            return False
        self.count(made, made.amount_minor)
        return True

    def count(self, made: ReturnPayment, amount_minor: int) -> None:
        """Change what all returns of a payment come to."""
        taken = self.taken[made.payment_id] + amount_minor
        if not 0 <= taken <= self.originals[made.payment_id]:
            raise RuntimeError("never_more_than_the_payment")
        self.taken[made.payment_id] = taken

    def write(self, made: ReturnPayment) -> None:
        """Store the return as it is, and its steps."""
        if made.is_final != (made.due_at is None):
            raise RuntimeError("an_unfinished_return_has_a_next_step")
        if (made.state is ReturnState.COMPLETED) != (made.completed_at is not None):
            raise RuntimeError("a_completed_return_has_its_instant")
        if made.decided_by == made.requested_by:
            raise RuntimeError("four_eyes_are_two_people")
        steps = self.steps.setdefault(made.return_id, [])
        for step in made.steps:
            if step.version != len(steps) + 1:
                raise RuntimeError(f"step {step.version} of a return that has taken {len(steps)}")
            steps.append(step)
        type_ = "return.requested" if made.version == 1 else f"return.{made.state.lower()}"
        self.events.append((type_, made.return_id, made.version))
        stored = copy_of(made)
        self.returns[made.return_id] = stored
        self.by_key[made.requested_by, made.idempotency_key] = made.return_id
        if made.is_final:
            self.unfinished.pop(made.return_id, None)
        else:
            self.unfinished[made.return_id] = stored


class MemoryReturns:
    """Confirm's store of returns for one process (see ports.ReturnStore), over tables that it shares with others."""

    def __init__(self, tables: ReturnTables, door: Door) -> None:
        self._tables, self._door = tables, door

    async def _arrive(self) -> None:
        """Before a write is made. Raises Unavailable, UnknownOutcome."""
        await self._door.enter()
        if self._door.is_lost():
            raise UnknownOutcome("the connection was lost during a write")

    async def _return(self) -> None:
        self._door.check_told()
        await self._door.leave()

    async def find(self, keys: Sequence[tuple[str, str]]) -> list[ReturnPayment | None]:
        await self._door.enter()
        ids = [self._tables.by_key.get(key) for key in keys]
        found = [None if id is None else copy_of(self._tables.returns[id]) for id in ids]
        await self._door.leave()
        return found

    async def taken(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        await self._door.enter()
        found = {id: self._tables.taken[id] for id in payment_ids if id in self._tables.taken}
        await self._door.leave()
        return found

    async def returned(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        await self._door.enter()
        return {id: self._tables.returned[id] for id in payment_ids if self._tables.returned.get(id)}

    async def claim(self, made: ReturnPayment, *, original_minor: int, taken_minor: int) -> bool:
        await self._arrive()
        is_new = (made.requested_by, made.idempotency_key) not in self._tables.by_key
        is_stored = is_new and self._tables.take(made, original_minor=original_minor, taken_minor=taken_minor)
        if is_stored:
            self._tables.write(made)
            self._door.note("claims", [_seen(made)])
        await self._return()
        if is_stored:
            made.steps.clear()
        return is_stored

    async def save(self, made: ReturnPayment) -> bool:
        await self._arrive()
        is_ours = self.may_write(made)
        if is_ours:
            if made.state in RETURN_REFUSED:
                self._tables.count(made, -made.amount_minor)
            if made.state is ReturnState.COMPLETED:
                before = self._tables.returned.get(made.payment_id, 0)
                self._tables.returned[made.payment_id] = before + made.amount_minor
            self._tables.write(made)
            self._door.note("stores", [_seen(made)])
        await self._return()
        made.steps.clear()
        return is_ours

    def may_write(self, made: ReturnPayment) -> bool:
        """Whether the return's fencing token is still its own."""
        known = self._tables.unfinished.get(made.return_id)
        return known is not None and known.fencing_token == made.fencing_token

    async def lease(self, return_id: UUID, *, now: datetime, until: datetime) -> ReturnPayment | None:
        await self._arrive()
        known = self._tables.unfinished.get(return_id)
        leased = None if known is None or not _is_free(known, now) else self._take(known, until)
        await self._return()
        return leased

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[ReturnPayment]:
        if not self._tables.unfinished:
            return []
        await self._arrive()
        due = [
            made
            for made in self._tables.unfinished.values()
            if made.due_at is not None and made.due_at <= now and _is_free(made, now)
        ]
        due.sort(key=attrgetter("due_at"))
        leased = [self._take(made, until) for made in due[:limit]]
        if leased:
            self._door.note("takes what is due", [_seen(made) for made in leased])
        await self._return()
        return leased

    async def give_lease_back(self, made: ReturnPayment, *, due_at: datetime) -> None:
        await self._arrive()
        known = self._tables.unfinished.get(made.return_id)
        if known is not None and known.fencing_token == made.fencing_token:
            known.leased_until = None
            if known.state is ReturnState.APPROVED:
                known.due_at = due_at
        await self._return()

    async def open_by_state(self) -> dict[ReturnState, tuple[int, datetime]]:
        await self._door.enter()
        found: dict[ReturnState, tuple[int, datetime]] = {}
        for made in self._tables.unfinished.values():
            count, since = found.get(made.state, (0, made.updated_at))
            found[made.state] = (count + 1, min(since, made.updated_at))
        return found

    async def by_ids(self, return_ids: Sequence[UUID]) -> dict[UUID, ReturnPayment]:
        await self._door.enter()
        returns = self._tables.returns
        found = {id: copy_of(returns[id]) for id in return_ids if id in returns}
        await self._door.leave()
        return found

    async def page(self, query: ListReturns) -> list[ReturnPayment]:
        await self._door.enter()
        matching = [
            made
            for made in sorted(self._tables.returns.values(), key=attrgetter("return_id"), reverse=True)
            if query.payment_id in (None, made.payment_id)
            and query.state in (None, made.state)
            and (query.cursor is None or made.return_id < query.cursor)
        ]
        return [copy_of(made) for made in matching[: query.limit + 1]]

    async def steps(self, return_id: UUID) -> list[ReturnStep]:
        await self._door.enter()
        return list(self._tables.steps[return_id])

    def _take(self, made: ReturnPayment, until: datetime) -> ReturnPayment:
        """Take the lease: a higher fencing token."""
        made.fencing_token += 1
        made.leased_until = until
        if made.state is ReturnState.APPROVED:
            made.due_at = until
        return copy_of(made)


def _is_free(made: ReturnPayment, now: datetime) -> bool:
    return made.leased_until is None or made.leased_until <= now
