"""The bank and the services that partner_bank talks to, as its tests want them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from uuid import UUID

from payflow.contracts.account import Account, Booked, CreditFromSuspense, CreditIncoming, ReturnFromSuspense
from payflow.contracts.agents import Agent
from payflow.contracts.confirm import PaymentState, PaymentView, RecordBankAnswer
from payflow.contracts.ofac import (
    GetDecision,
    PaymentDecision,
    ReviewState,
    Screened,
    ScreeningOutcome,
    ScreenPayment,
)
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError
from payflow.services.partner_bank.domain import (
    BankWord,
    Instruction,
    Return,
    Word,
)
from tests.fakes_gateway.services import a_payment

ACCEPTED = BankWord(Word.ACCEPTED)


class ScriptedBank:
    """A rail whose bank keeps what it received and says what the test tells it to.

    `answers` False: it takes payments and says nothing. `receives` False: payments never reach it, and of returns it
    says so with the reason `never_received`. `before_it_answers`: what happens, once, while it is asked about returns.
    """

    def __init__(self) -> None:
        self.word = ACCEPTED
        self.answers = True
        self.receives = True
        self.received: dict[str, list[tuple[str | None, str | None, str | None]]] = {}
        self.messages: list[list[UUID]] = []
        self.enquiries: list[list[UUID]] = []
        self.offered: dict[str, list[Return]] = {}
        self.sent: list[UUID] = []
        self.never_received = "AG09"
        self.before_it_answers: Callable[[], Awaitable[None]] | None = None
        self.verdicts: dict[UUID, BankWord] = {}

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

    async def send_returns(self, *, agent: Agent, returns: Sequence[Return]) -> Mapping[UUID, BankWord]:
        self.sent.extend(one.return_id for one in returns)
        if not self.receives:
            return {}
        for one in returns:
            self.offered.setdefault(one.end_to_end_id, []).append(one)
            # A return's first verdict stays, as a bank's does.
            self.verdicts.setdefault(one.return_id, self.word)
        return {one.return_id: self.verdicts[one.return_id] for one in returns} if self.answers else {}

    async def enquire_returns(
        self, *, agent: Agent, returns: Sequence[Return], message_id: str
    ) -> Mapping[UUID, BankWord]:
        self.enquiries.append([one.return_id for one in returns])
        meanwhile, self.before_it_answers = self.before_it_answers, None
        if meanwhile is not None:
            await meanwhile()
        if not self.answers:
            return {}
        unknown = BankWord(Word.NOT_RECEIVED, self.never_received)
        return {one.return_id: self.verdicts.get(one.return_id, unknown) for one in returns}


class InMemoryOfac:
    """Screens against the names that a test lists; `failure` is answered instead while it is set.

    Each call takes the first of `gates`, where there is one, and waits for it.
    """

    def __init__(self) -> None:
        self.listed: set[str] = set()
        self.failure: PayflowError | None = None
        self.screened: list[ScreenPayment] = []
        self.gates: list[asyncio.Event] = []
        self.called = asyncio.Event()
        self.decided: dict[UUID, ReviewState] = {}
        self.decided_at: datetime | None = None

    async def get_decisions(self, queries: list[GetDecision]) -> list[PaymentDecision | PayflowError]:
        return [
            PaymentDecision(
                payment_id=one.payment_id,
                state=self.decided.get(one.payment_id, ReviewState.OPEN),
                decided_at=self.decided_at if one.payment_id in self.decided else None,
            )
            for one in queries
        ]

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


class GatedLedger:
    """The account service; each command takes the first of `gates`, where there is one, and waits for it.

    `failure` is raised instead while it is set.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self.gates: list[asyncio.Event] = []
        self.called = asyncio.Event()
        self.failure: PayflowError | None = None

    async def credit_incoming(self, commands: list[CreditIncoming]) -> Answers[Booked]:
        await self._pass()
        return await self._account.credit_incoming(commands)

    async def credit_from_suspense(self, commands: list[CreditFromSuspense]) -> Answers[Booked]:
        await self._pass()
        return await self._account.credit_from_suspense(commands)

    async def return_from_suspense(self, commands: list[ReturnFromSuspense]) -> Answers[Booked]:
        await self._pass()
        return await self._account.return_from_suspense(commands)

    async def _pass(self) -> None:
        self.called.set()
        if self.gates:
            await self.gates.pop(0).wait()
        if self.failure is not None:
            raise self.failure


class InMemoryConfirm:
    """Notes the banks' answers that it is told; `failure` is answered instead while it is set."""

    def __init__(self) -> None:
        self.told: list[RecordBankAnswer] = []
        self.failure: PayflowError | None = None

    async def record_bank_answer(self, commands: list[RecordBankAnswer]) -> list[PaymentView | PayflowError]:
        if self.failure is not None:
            return [self.failure for _ in commands]
        self.told.extend(commands)
        return [
            a_payment(
                payment_id=command.payment_id,
                state=PaymentState.COMPLETED if command.is_accepted else PaymentState.REJECTED,
            )
            for command in commands
        ]
