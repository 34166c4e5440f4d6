"""In-memory store of partner_bank."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from payflow.contracts.incoming import suspense_exit_id
from payflow.contracts.partner_bank import RETURN, InstructionPage, InstructionView, ListInstructions
from payflow.contracts.sides import PaymentSides
from payflow.kernel.envelope import Event
from payflow.services.partner_bank.domain import (
    LIFE,
    Direction,
    Instruction,
    Return,
    Status,
    incoming_sides,
)


@dataclass
class _Tables:
    instructions: dict[UUID, Instruction] = field(default_factory=dict)
    returns: dict[UUID, Return] = field(default_factory=dict)
    exits: dict[UUID, UUID] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)


class FakeInstructions:
    """One transaction over the in-memory instructions."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    async def insert(self, instructions: Sequence[Instruction]) -> set[UUID]:
        inserted = set()
        for one in instructions:
            known = self._tables.instructions
            key = (one.direction, one.agent_bic, one.end_to_end_id)
            taken = {(other.direction, other.agent_bic, other.end_to_end_id) for other in known.values()}
            if one.payment_id not in known and key not in taken:
                known[one.payment_id] = one
                inserted.add(one.payment_id)
        return inserted

    async def lock(self, payment_ids: Sequence[UUID]) -> dict[UUID, Instruction]:
        known = self._tables.instructions
        return {id: known[id] for id in payment_ids if id in known}

    async def lock_due(self, statuses: Sequence[Status], *, now: datetime, limit: int) -> list[Instruction]:
        due = [
            (one.next_attempt_at, one.payment_id)
            for one in self._tables.instructions.values()
            if one.status in statuses and one.next_attempt_at is not None and one.next_attempt_at <= now
        ]
        return [self._tables.instructions[payment_id] for _, payment_id in sorted(due)[:limit]]

    async def insert_return(self, made: Return) -> None:
        known = self._tables.returns
        assert made.return_id not in known
        assert not [
            one for one in known.values() if one.payment_id == made.payment_id and one.status is not Status.REJECTED
        ]
        known[made.return_id] = made

    async def lock_due_returns(self, status: Status, *, now: datetime, limit: int) -> list[Return]:
        due = [
            (one.next_attempt_at, one.return_id)
            for one in self._tables.returns.values()
            if one.status is status and one.next_attempt_at is not None and one.next_attempt_at <= now
        ]
        return [self._tables.returns[return_id] for _, return_id in sorted(due)[:limit]]

    async def lock_returns(self, return_ids: Sequence[UUID]) -> dict[UUID, Return]:
        return {id: self._tables.returns[id] for id in return_ids if id in self._tables.returns}

    async def lock_returns_not_refused(self, payment_ids: Sequence[UUID]) -> dict[UUID, Return]:
        known = self._tables.returns.values()
        return {
            one.payment_id: one for one in known if one.payment_id in payment_ids and one.status is not Status.REJECTED
        }

    async def save_returns(self, returns: Sequence[Return]) -> None:
        for one in returns:
            if self._tables.returns[one.return_id].status in (one.status, Status.UNKNOWN):
                self._tables.returns[one.return_id] = one

    async def save(self, instructions: Sequence[Instruction]) -> None:
        for one in instructions:
            known = self._tables.instructions[one.payment_id]
            if known.status is one.status or not LIFE.is_final(known.status):
                self._tables.instructions[one.payment_id] = one

    async def note_exits(self, payment_ids: Sequence[UUID]) -> None:
        self._tables.exits.update({suspense_exit_id(id): id for id in payment_ids})

    async def append_events(self, events: Sequence[Event]) -> None:
        self._tables.events.extend(events)


class FakeStore:
    """The partner_bank service's database in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeInstructions]:
        async with self._lock:
            working = copy.deepcopy(self._tables)
            yield FakeInstructions(working)
            self._tables = working

    async def events(self) -> list[Event]:
        """What was appended and committed."""
        return self._tables.events

    async def find(self, payment_ids: Sequence[UUID]) -> dict[UUID, Instruction]:
        known = self._tables.instructions
        return {id: known[id] for id in payment_ids if id in known}

    async def find_returns(self, return_ids: Sequence[UUID]) -> dict[UUID, Return]:
        return {id: self._tables.returns[id] for id in return_ids if id in self._tables.returns}

    async def sides(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentSides | None]:
        found = await self.find([self._tables.exits.get(id, id) for id in payment_ids])
        booked = {id: found.get(self._tables.exits.get(id, id)) for id in payment_ids}
        return {
            id: incoming_sides(
                booked_as=id, agent_bic=one.agent_bic, end_to_end_id=one.end_to_end_id, parties=one.parties
            )
            for id, one in booked.items()
            if one is not None and one.direction is Direction.INCOMING
        }

    async def held_in_suspense(self, *, after: UUID | None, limit: int) -> list[UUID]:
        held = [id for id, one in self._tables.instructions.items() if one.status is Status.HELD_IN_SUSPENSE]
        return sorted(id for id in held if after is None or id > after)[:limit]

    async def open_incoming(self) -> dict[Status, tuple[int, datetime]]:
        found: dict[Status, list[datetime]] = {}
        for one in self._tables.instructions.values():
            if one.direction is Direction.INCOMING and not one.is_final:
                found.setdefault(one.status, []).append(one.updated_at)
        return {status: (len(since), min(since)) for status, since in found.items()}

    async def page(self, query: ListInstructions) -> InstructionPage:
        if query.direction == RETURN:
            return self._page_of_returns(query)
        rows = sorted(
            self._tables.instructions.values(), key=lambda one: (one.created_at, one.payment_id), reverse=True
        )
        rows = [one for one in rows if query.direction in (None, one.direction) and query.status in (None, one.status)]
        if query.cursor is not None:
            last = self._tables.instructions[query.cursor]
            rows = [one for one in rows if (one.created_at, one.payment_id) < (last.created_at, last.payment_id)]
        views = [_view(one) for one in rows[: query.limit]]
        return InstructionPage(
            instructions=views, next_cursor=views[-1].payment_id if len(rows) > query.limit else None
        )

    def _page_of_returns(self, query: ListInstructions) -> InstructionPage:
        rows = sorted(self._tables.returns.values(), key=lambda one: (one.created_at, one.return_id), reverse=True)
        rows = [one for one in rows if query.status in (None, one.status)]
        if query.cursor is not None:
            last = self._tables.returns[query.cursor]
            rows = [one for one in rows if (one.created_at, one.return_id) < (last.created_at, last.return_id)]
        views = [_view_of_return(one) for one in rows[: query.limit]]
        return InstructionPage(
            instructions=views, next_cursor=views[-1].payment_id if len(rows) > query.limit else None
        )


def _view_of_return(one: Return) -> InstructionView:
    return InstructionView(
        payment_id=one.return_id,
        direction=RETURN,
        end_to_end_id=one.end_to_end_id,
        agent_bic=one.agent_bic,
        amount_minor=one.amount_minor,
        currency=one.currency,
        status=one.status,
        reason_code=one.reason_code or one.return_reason,
        created_at=one.created_at,
        updated_at=one.updated_at,
        next_attempt_at=one.next_attempt_at,
        last_answer=one.last_answer,
        last_answer_at=one.last_answer_at,
        end_requested_by=one.request.requested_by if one.request else None,
        end_reference=one.request.reference if one.request else None,
        end_expires_at=one.request.expires_at if one.request else None,
    )


def _view(one: Instruction) -> InstructionView:
    return InstructionView(
        payment_id=one.payment_id,
        direction=one.direction,
        end_to_end_id=one.end_to_end_id,
        agent_bic=one.agent_bic,
        amount_minor=one.amount_minor,
        currency=one.currency,
        status=one.status,
        reason_code=one.reason_code,
        created_at=one.created_at,
        updated_at=one.updated_at,
        next_attempt_at=one.next_attempt_at,
    )
