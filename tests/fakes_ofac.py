"""In-memory ports of the ofac service. The store passes the same suite as the real one in tests/ports."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import msgspec

from payflow.contracts.confirm import DecideReview, GetPayment, PaymentNotFound, PaymentState, PaymentView
from payflow.contracts.ofac import PaymentDecision, ReviewState
from payflow.contracts.operation import Answers
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.kernel.machine import IllegalTransition
from payflow.services.ofac.domain.cases import Decision, Delivery, ReviewCase
from tests.fakes_gateway.services import a_payment


class _Tables:
    def __init__(self) -> None:
        self.cases: dict[UUID, ReviewCase] = {}
        self.deliver_after: dict[UUID, datetime] = {}
        self.proofs: dict[tuple[bytes, str], datetime] = {}
        self.events: list[Event] = []


class FakeCases:
    """One transaction over the in-memory tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    async def open_cases(self, cases: Sequence[ReviewCase]) -> dict[UUID, UUID]:
        review_ids = {case.payment_id: case.review_id for case in self._tables.cases.values()}
        for case in cases:
            if case.payment_id not in review_ids:
                review_ids[case.payment_id] = case.review_id
                self._tables.cases[case.review_id] = case
        return {case.payment_id: review_ids[case.payment_id] for case in cases}

    async def insert_proofs(self, *, proofs: Sequence[bytes], list_version: str, now: datetime) -> None:
        for proof in proofs:
            self._tables.proofs.setdefault((proof, list_version), now)

    async def lock_cases(self, review_ids: Sequence[UUID]) -> dict[UUID, ReviewCase]:
        return {id: self._tables.cases[id] for id in review_ids if id in self._tables.cases}

    async def save_decisions(self, *, cases: Sequence[ReviewCase], deliver_after: datetime) -> None:
        for case in cases:
            if self._tables.cases[case.review_id].state is ReviewState.OPEN:
                self._tables.cases[case.review_id] = case
                self._tables.deliver_after[case.review_id] = deliver_after

    async def append_events(self, events: Sequence[Event]) -> None:
        self._tables.events.extend(events)


class FakeOfacStore:
    """The ofac service's database in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()
        self.transactions = 0
        self.is_down = False

    @property
    def events(self) -> list[Event]:
        """What was appended and committed."""
        return self._tables.events

    @property
    def proofs(self) -> dict[tuple[bytes, str], datetime]:
        """When each proof and list version was first stored."""
        return self._tables.proofs

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeCases]:
        async with self._lock:
            if self.is_down:
                raise Unavailable("The database cannot be reached.")
            self.transactions += 1
            working = copy.deepcopy(self._tables)
            await asyncio.sleep(0)
            yield FakeCases(working)
            self._tables = working

    async def cases(self, review_ids: Sequence[UUID]) -> dict[UUID, ReviewCase]:
        return {id: self._tables.cases[id] for id in review_ids if id in self._tables.cases}

    async def reviews_of(self, payment_ids: Sequence[UUID]) -> dict[UUID, UUID]:
        review_ids = {case.payment_id: case.review_id for case in self._tables.cases.values()}
        return {id: review_ids[id] for id in payment_ids if id in review_ids}

    async def decisions_of(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentDecision]:
        cases = {case.payment_id: case for case in self._tables.cases.values()}
        return {
            id: PaymentDecision(payment_id=id, state=cases[id].state, decided_at=cases[id].decided_at)
            for id in payment_ids
            if id in cases
        }

    async def newest_cases(self, *, state: ReviewState | None, before: UUID | None, limit: int) -> list[ReviewCase]:
        found = [
            case
            for case in self._tables.cases.values()
            if state in (None, case.state) and (before is None or case.review_id < before)
        ]
        return sorted(found, key=lambda case: case.review_id, reverse=True)[:limit]

    async def open_reviews(self) -> tuple[int, datetime | None]:
        opened = [case.opened_at for case in self._tables.cases.values() if case.state is ReviewState.OPEN]
        return len(opened), min(opened, default=None)

    async def undelivered(self, *, now: datetime, limit: int) -> list[Decision]:
        due = [
            (self._tables.deliver_after[case.review_id], case)
            for case in self._tables.cases.values()
            if case.state is not ReviewState.OPEN
            and case.delivered_at is None
            and self._tables.deliver_after[case.review_id] <= now
        ]
        return [
            Decision(
                review_id=case.review_id,
                payment_id=case.payment_id,
                is_cleared=case.is_cleared,
                decided_by=case.decided_by or "",
                tries=case.delivery_tries,
            )
            for _, case in sorted(due, key=lambda pair: pair[0])[:limit]
        ]

    async def save_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            case = self._tables.cases[delivery.review_id]
            if case.delivered_at is None:
                self._tables.deliver_after[delivery.review_id] = delivery.deliver_after
                self._tables.cases[delivery.review_id] = msgspec.structs.replace(
                    case, delivery_tries=delivery.tries, delivered_at=delivery.delivered_at
                )


class FakePayments:
    """The part of confirm that hears decisions: payments under review go on, end, or refuse."""

    def __init__(self) -> None:
        self.states: dict[UUID, PaymentState] = {}
        self.heard: list[DecideReview] = []
        self.is_down = False
        self.is_silent = False

    async def decide_review(self, commands: list[DecideReview]) -> Answers[PaymentView]:
        await self._be_reached()
        self.heard.extend(commands)
        return [self._decide(command) for command in commands]

    async def get(self, queries: list[GetPayment]) -> Answers[PaymentView]:
        await self._be_reached()
        payment_ids = [UUID(query.transaction_id) for query in queries]
        return [
            a_payment(payment_id=payment_id, state=self.states[payment_id])
            if payment_id in self.states
            else PaymentNotFound()
            for payment_id in payment_ids
        ]

    async def _be_reached(self) -> None:
        if self.is_down:
            raise Unavailable("confirm cannot be reached.")
        if self.is_silent:
            await asyncio.Event().wait()

    def _decide(self, command: DecideReview) -> PaymentView | PaymentNotFound | IllegalTransition:
        state = self.states.get(command.payment_id)
        if state is None:
            return PaymentNotFound()
        if state is not PaymentState.UNDER_REVIEW:
            return IllegalTransition()
        self.states[command.payment_id] = PaymentState.APPROVED if command.is_cleared else PaymentState.REJECTED
        return a_payment(payment_id=command.payment_id, state=self.states[command.payment_id])
