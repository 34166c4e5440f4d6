"""What the partner_bank service needs from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.agents import Agent
from payflow.contracts.partner_bank import InstructionPage, ListInstructions
from payflow.contracts.sides import PaymentSides
from payflow.kernel.envelope import Event
from payflow.services.partner_bank.domain import BankWord, Instruction, Return, Status


class InstructionTransaction(Protocol):
    """One database transaction over the instructions."""

    async def insert(self, instructions: Sequence[Instruction]) -> set[UUID]:
        """Store new instructions; returns the payment ids that were stored.

        Left out are those whose payment id is known, and those whose end-to-end id another payment to or from the
        same bank carries.
        """
        ...

    async def lock(self, payment_ids: Sequence[UUID]) -> dict[UUID, Instruction]:
        """Known instructions, locked until the end of the transaction in one order everywhere."""
        ...

    async def lock_due(self, statuses: Sequence[Status], *, now: datetime, limit: int) -> list[Instruction]:
        """Instructions in these statuses whose next try is due: the oldest first, locked; those that somebody else has
        locked are left out."""
        ...

    async def save(self, instructions: Sequence[Instruction]) -> None:
        """Write what has changed of locked instructions; a final status is never overwritten by another."""
        ...

    async def insert_return(self, made: Return) -> None:
        """Store a return. A payment has at most one that was not refused: another one is a bug, and fails."""
        ...

    async def lock_due_returns(self, status: Status, *, now: datetime, limit: int) -> list[Return]:
        """Returns in this status whose next try is due, locked as by lock_due."""
        ...

    async def lock_returns(self, return_ids: Sequence[UUID]) -> dict[UUID, Return]:
        """Known returns by their ids, locked as by lock."""
        ...

    async def lock_returns_not_refused(self, payment_ids: Sequence[UUID]) -> dict[UUID, Return]:
        """The return of each payment that was not refused, by the payment's id, locked as by lock."""
        ...

    async def save_returns(self, returns: Sequence[Return]) -> None:
        """Write what has changed of locked returns; a bank's word is never overwritten by another."""
        ...

    async def note_exits(self, payment_ids: Sequence[UUID]) -> None:
        """Keep under which id (`suspense_exit_id`) the money of each of these payments leaves suspense."""
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Store events in this transaction; consumers are woken after the commit."""
        ...


class Store(Protocol):
    """The partner_bank service's database."""

    def transaction(self) -> AbstractAsyncContextManager[InstructionTransaction]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def find(self, payment_ids: Sequence[UUID]) -> dict[UUID, Instruction]:
        """Instructions by payment id; unknown ids are left out."""
        ...

    async def find_returns(self, return_ids: Sequence[UUID]) -> dict[UUID, Return]:
        """Returns by their ids; unknown ids are left out."""
        ...

    async def sides(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentSides | None]:
        """The sides of incoming payments, by their ids or those under which their money left suspense; unknown ids are
        left out, and None is one that cannot be read."""
        ...

    async def held_in_suspense(self, *, after: UUID | None, limit: int) -> list[UUID]:
        """Incoming payments whose money is in suspense and does not go back, by their ids, from the one after this."""
        ...

    async def open_incoming(self) -> dict[Status, tuple[int, datetime]]:
        """How many incoming payments are in each status that is not final, and since when the oldest of each is."""
        ...

    async def page(self, query: ListInstructions) -> InstructionPage:
        """One page of instructions, or of returns where that is the direction, newest first."""
        ...


class Rail(Protocol):
    """The way to other banks.

    An answer that did not come, or cannot be read, is UNKNOWN; nothing is raised for it.
    """

    async def send(self, *, agent: Agent, instructions: Sequence[Instruction]) -> Mapping[UUID, BankWord]:
        """Send credit transfers to their bank as one message under the message id that they carry."""
        ...

    async def enquire(
        self, *, agent: Agent, instructions: Sequence[Instruction], message_id: str
    ) -> Mapping[UUID, BankWord]:
        """Ask their bank what became of credit transfers, by the ids under which they were sent."""
        ...

    async def send_returns(self, *, agent: Agent, returns: Sequence[Return]) -> Mapping[UUID, BankWord]:
        """Send returns as `send` sends credit transfers; the words by the returns' own ids."""
        ...

    async def enquire_returns(
        self, *, agent: Agent, returns: Sequence[Return], message_id: str
    ) -> Mapping[UUID, BankWord]:
        """Ask what became of returns. A final word counts only where it names what is a return's alone: a bank may
        know the payment's ids, and nothing of the return."""
        ...
