"""Adapts the contract to the use cases: wires the store, the clock and the other services."""

from __future__ import annotations

from collections import Counter as Tally
from typing import Final

from prometheus_client import Counter

from payflow.contracts.operation import Answers
from payflow.contracts.risk import Assessed, AssessmentDetail, AssessPayment, GetAssessment
from payflow.kernel.clock import Clock
from payflow.platform.postgres import repeat_then_halve
from payflow.services.risk import usecases
from payflow.services.risk.domain import ExpectedCounts, RuleSet
from payflow.services.risk.ports import CustomerChecks, SanctionsScreening, Store

_assessed: Final = Counter("payflow_risk_assessments_total", "Payments assessed, repeats included.", ["level"])
_hit: Final = Counter("payflow_risk_rule_hits_total", "Rules that hit, over all assessments.", ["rule"])


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
        answers = await repeat_then_halve(
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
        _count(answers)
        return answers

    async def reassess(self, commands: list[AssessPayment]) -> Answers[Assessed]:
        answers = await usecases.reassess(
            commands=commands,
            store=self._store,
            sanctions=self._sanctions,
            customers=self._customers,
            rules=self._rules,
            now=self._clock.now(),
        )
        _count(answers)
        return answers

    async def get_assessments(self, queries: list[GetAssessment]) -> Answers[AssessmentDetail]:
        return await usecases.get_assessments(queries=queries, store=self._store)


def _count(answers: Answers[Assessed]) -> None:
    assessed = [answer for answer in answers if isinstance(answer, Assessed)]
    for level, count in Tally(answer.level for answer in assessed).items():
        _assessed.labels(level.value).inc(count)
    for rule, count in Tally(rule for answer in assessed for rule in answer.rules_hit).items():
        _hit.labels(rule).inc(count)
