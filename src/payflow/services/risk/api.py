"""Adapts the contract to the use cases: wires the store, the clock and the other services."""

from __future__ import annotations

from payflow.contracts.operation import Answers
from payflow.contracts.risk import Assessed, AssessmentDetail, AssessPayment, GetAssessment
from payflow.kernel.clock import Clock
from payflow.platform.postgres import repeat_then_halve
from payflow.services.risk import usecases
from payflow.services.risk.domain import ExpectedCounts, RuleSet
from payflow.services.risk.ports import CustomerChecks, SanctionsScreening, Store


class RiskApi:
    """Implements contracts.risk.Risk."""

    def __init__(
        self,
        *,
        store: Store,
        sanctions: SanctionsScreening,
        customers: CustomerChecks,
        rules: RuleSet,
        clock: Clock,
    ) -> None:
        self._store = store
        self._sanctions = sanctions
        self._customers = customers
        self._rules = rules
        self._counts = ExpectedCounts(at_most=rules.velocity_payments_max)
        self._clock = clock

    async def assess(self, commands: list[AssessPayment]) -> Answers[Assessed]:
        return await repeat_then_halve(
            lambda batch: usecases.assess(
                commands=batch,
                store=self._store,
                sanctions=self._sanctions,
                customers=self._customers,
                rules=self._rules,
                counts=self._counts,
                now=self._clock.now(),
            ),
            commands,
        )

    async def reassess(self, commands: list[AssessPayment]) -> Answers[Assessed]:
        return await usecases.reassess(
            commands=commands,
            store=self._store,
            sanctions=self._sanctions,
            customers=self._customers,
            rules=self._rules,
            now=self._clock.now(),
        )

    async def get_assessments(self, queries: list[GetAssessment]) -> Answers[AssessmentDetail]:
        return await usecases.get_assessments(queries=queries, store=self._store)
