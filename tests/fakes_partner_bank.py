"""In-memory ports of partner_bank, and the services and the bank that it talks to."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from payflow.contracts.agents import Agent
from payflow.contracts.confirm import PaymentState, PaymentView, RecordBankAnswer
from payflow.contracts.ofac import Screened, ScreeningOutcome, ScreenPayment
from payflow.contracts.partner_bank import InstructionPage, InstructionView, ListInstructions
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.services.partner_bank.domain import LIFE, BankWord, Instruction, Status, Word
from tests.builders import NOON, new_id


@dataclass
class _Tables:
    instructions: dict[UUID, Instruction] = field(default_factory=dict)
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

    async def save(self, instructions: Sequence[Instruction]) -> None:
        for one in instructions:
            known = self._tables.instructions[one.payment_id]
            if known.status is one.status or not LIFE.is_final(known.status):
                self._tables.instructions[one.payment_id] = one

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

    async def page(self, query: ListInstructions) -> InstructionPage:
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
    )


ACCEPTED = BankWord(Word.ACCEPTED)


class ScriptedBank:
    """A rail whose bank keeps what it received and says what the test tells it to.

    `answers` False: it takes payments and says nothing. `receives` False: payments never reach it.
    """

    def __init__(self) -> None:
        self.word = ACCEPTED
        self.answers = True
        self.receives = True
        self.received: dict[str, list[tuple[str | None, str | None, str | None]]] = {}
        self.messages: list[list[UUID]] = []
        self.enquiries: list[list[UUID]] = []

    async def send(self, *, agent: Agent, instructions: Sequence[Instruction]) -> Mapping[UUID, BankWord]:
        self.messages.append([one.payment_id for one in instructions])
        if not self.receives:
            return {}
        for one in instructions:
            ids = (one.message_id, one.instruction_id, one.uetr)
            self.received.setdefault(one.end_to_end_id, []).append(ids)
        return {one.payment_id: self.word for one in instructions} if self.answers else {}

    async def enquire(
        self, *, agent: Agent, instructions: Sequence[Instruction], message_id: str
    ) -> Mapping[UUID, BankWord]:
        self.enquiries.append([one.payment_id for one in instructions])
        if not self.answers:
            return {}
        return {
            one.payment_id: self.word if one.end_to_end_id in self.received else BankWord(Word.NOT_RECEIVED, "AG09")
            for one in instructions
        }


async def _not_here(items: list[Any]) -> list[Any]:
    raise NotImplementedError("this stand-in has only what partner_bank calls")


class _StandIn:
    """Has the contract's other operations too, so that it can be served, and fails when one is called."""

    def __getattr__(self, name: str) -> Any:
        return _not_here


class InMemoryOfac(_StandIn):
    """Screens against the names that a test lists; `failure` is answered instead while it is set.

    Each call takes the first of `gates`, where there is one, and waits for it.
    """

    def __init__(self) -> None:
        self.listed: set[str] = set()
        self.failure: PayflowError | None = None
        self.screened: list[ScreenPayment] = []
        self.gates: list[asyncio.Event] = []
        self.called = asyncio.Event()

    async def screen(self, commands: list[ScreenPayment]) -> list[Screened | PayflowError]:
        self.screened.extend(commands)
        self.called.set()
        if self.gates:
            await self.gates.pop(0).wait()
        if self.failure is not None:
            return [self.failure for _ in commands]
        return [
            Screened(
                outcome=ScreeningOutcome.POSSIBLE_MATCH
                if self.listed.intersection(command.names)
                else ScreeningOutcome.CLEAR,
                review_id=None,
                list_version="test",
            )
            for command in commands
        ]


class InMemoryConfirm(_StandIn):
    """Notes the banks' answers that it is told; `failure` is answered instead while it is set."""

    def __init__(self) -> None:
        self.told: list[RecordBankAnswer] = []
        self.failure: PayflowError | None = None

    async def record_bank_answer(self, commands: list[RecordBankAnswer]) -> list[PaymentView | PayflowError]:
        if self.failure is not None:
            return [self.failure for _ in commands]
        self.told.extend(commands)
        return [_payment(command) for command in commands]


def _payment(command: RecordBankAnswer) -> PaymentView:
    return PaymentView(
        payment_id=command.payment_id,
        transaction_id=str(new_id()),
        customer_id="cust_001",
        state=PaymentState.COMPLETED if command.is_accepted else PaymentState.REJECTED,
        version=5,
        amount="10.00",
        amount_minor=1000,
        currency="EUR",
        debtor_account="ACC001",
        creditor_account="DE08990100100000001001",
        risk_level="LOW",
        reference=None,
        reason=None,
        error_code=None,
        error_detail=None,
        received_at=NOON,
        updated_at=NOON,
        completed_at=NOON,
        expires_at=None,
    )
