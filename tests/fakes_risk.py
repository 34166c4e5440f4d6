"""What the risk service needs, in memory: its database, and the ofac and kyc services as it sees them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID, uuid5

from payflow.contracts.kyc import CheckCustomer, CustomerChecked, VerificationLevel, VerificationState
from payflow.contracts.ofac import Screened, ScreeningOutcome, ScreenPayment
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError
from payflow.platform.postgres import ConcurrencyConflict
from payflow.services.risk.domain import Assessment, RuleSet

LIST_VERSION = "2026-03-01"


class FakeRiskStore:
    """Assessments in memory: one transaction at a time. It passes the same suite as the real one."""

    def __init__(self) -> None:
        self._assessments: dict[UUID, Assessment] = {}
        self._refused: set[UUID] = set()
        self._rules: dict[int, RuleSet] = {}
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeRiskStore]:
        async with self._lock:
            yield self

    async def count_recent(self, *, customer_ids: Sequence[str], since: datetime, at_most: int) -> dict[str, int]:
        await asyncio.sleep(0)
        return {
            customer_id: min(at_most, sum(self._counts(one, customer_id, since) for one in self._assessments.values()))
            for customer_id in customer_ids
        }

    def _counts(self, assessment: Assessment, customer_id: str, since: datetime) -> bool:
        return (
            assessment.customer_id == customer_id
            and assessment.assessed_at > since
            and assessment.payment_id not in self._refused
        )

    async def save(self, assessments: Sequence[Assessment]) -> None:
        if any(assessment.payment_id in self._assessments for assessment in assessments):
            raise ConcurrencyConflict("A payment was assessed meanwhile.")
        self._assessments.update({assessment.payment_id: assessment for assessment in assessments})

    async def save_if_counted(
        self, assessments: Sequence[Assessment], *, expected: Mapping[str, int], since: datetime, at_most: int
    ) -> dict[str, int]:
        async with self._lock:
            counts = await self.count_recent(customer_ids=list(expected), since=since, at_most=at_most)
            differing = {id: count for id, count in counts.items() if count != expected[id]}
            if not differing:
                await self.save(assessments)
            return differing

    async def find(self, payment_ids: Sequence[UUID]) -> dict[UUID, Assessment]:
        return {id: self._assessments[id] for id in payment_ids if id in self._assessments}

    async def activate(self, rules: RuleSet, *, now: datetime) -> RuleSet:
        if rules.version > max(self._rules, default=0):
            self._rules[rules.version] = rules
        return self._rules[max(self._rules)]

    async def stop_counting(self, payment_ids: Sequence[UUID]) -> None:
        self._refused.update(payment_ids)


class FakeSanctions:
    """Finds a possible match in the names of `listed`; payments in `failing` get that error, all of them `down`."""

    def __init__(self) -> None:
        self.listed: set[str] = set()
        self.failing: dict[UUID, PayflowError] = {}
        self.down: PayflowError | None = None
        self.asked: list[ScreenPayment] = []

    async def screen(self, commands: list[ScreenPayment]) -> Answers[Screened]:
        await asyncio.sleep(0)
        self.asked.extend(commands)
        return [self.down or self.failing.get(command.payment_id) or self._screen(command) for command in commands]

    def _screen(self, command: ScreenPayment) -> Screened:
        if self.listed.isdisjoint(command.names):
            return Screened(outcome=ScreeningOutcome.CLEAR, review_id=None, list_version=LIST_VERSION)
        review_id = uuid5(command.payment_id, "review")
        return Screened(outcome=ScreeningOutcome.POSSIBLE_MATCH, review_id=review_id, list_version=LIST_VERSION)


class FakeCustomers:
    """Everybody is verified but `unverified`; customers in `failing` get that error."""

    def __init__(self) -> None:
        self.unverified: set[str] = set()
        self.failing: dict[str, PayflowError] = {}

    async def check(self, queries: list[CheckCustomer]) -> Answers[CustomerChecked]:
        await asyncio.sleep(0)
        return [self.failing.get(query.customer_id) or self._check(query.customer_id) for query in queries]

    def _check(self, customer_id: str) -> CustomerChecked:
        is_verified = customer_id not in self.unverified
        return CustomerChecked(
            is_verified=is_verified,
            state=VerificationState.VERIFIED if is_verified else VerificationState.UNVERIFIED,
            level=VerificationLevel.FULL if is_verified else VerificationLevel.NONE,
            verified_at=None,
            expires_at=None,
        )
