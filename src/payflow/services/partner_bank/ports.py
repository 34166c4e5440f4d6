"""What the partner_bank service needs from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol
from uuid import UUID

from payflow.contracts.agents import Agent
from payflow.contracts.partner_bank import InstructionPage, ListInstructions
from payflow.kernel.envelope import Event
from payflow.services.partner_bank.domain import BankWord, Instruction, Status


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
        """Instructions in these statuses whose next try is due, the oldest first, locked; those that somebody else
        has locked are left out."""
        ...

    async def save(self, instructions: Sequence[Instruction]) -> None:
        """Write what has changed of locked instructions; a final status is never overwritten by another."""
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

    async def page(self, query: ListInstructions) -> InstructionPage:
        """One page of instructions, newest first."""
        ...


class Rail(Protocol):
    """The way to other banks. An answer that did not come, or cannot be read, is UNKNOWN; nothing is raised for it."""

    async def send(self, *, agent: Agent, instructions: Sequence[Instruction]) -> Mapping[UUID, BankWord]:
        """Send credit transfers to their bank as one message under the message id that they carry."""
        ...

    async def enquire(
        self, *, agent: Agent, instructions: Sequence[Instruction], message_id: str
    ) -> Mapping[UUID, BankWord]:
        """Ask their bank what became of credit transfers, by the ids under which they were sent."""
        ...
