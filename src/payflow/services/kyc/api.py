"""Adapts the contract to the use cases: wires the store, the clock and ids, and repeats batches that collide."""

from __future__ import annotations

from collections import Counter as Tally
from typing import Final

from prometheus_client import Counter

from payflow.contracts.kyc import CheckCustomer, CustomerChecked, RecordVerification, VerificationHistory
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.platform.context import current_traceparent
from payflow.platform.postgres import repeat_then_halve
from payflow.services.kyc import usecases
from payflow.services.kyc.ports import Store

_checked: Final = Counter("payflow_kyc_checks_total", "Customers looked up, by how they stand.", ["state"])


class KycApi:
    """Implements contracts.kyc.Kyc."""

    def __init__(self, *, store: Store, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def check(self, queries: list[CheckCustomer]) -> Answers[CustomerChecked]:
        answers = await usecases.check(queries=queries, store=self._store, now=self._clock.now())
        states = Tally(answer.state for answer in answers if isinstance(answer, CustomerChecked))
        for state, count in states.items():
            _checked.labels(state.value).inc(count)
        return answers

    async def record(self, commands: list[RecordVerification]) -> Answers[VerificationHistory]:
        return await repeat_then_halve(
            lambda batch: usecases.record(
                commands=batch,
                store=self._store,
                ids=self._ids,
                traceparent=current_traceparent.get(),
                now=self._clock.now(),
            ),
            commands,
        )

    async def history(self, queries: list[CheckCustomer]) -> Answers[VerificationHistory]:
        return await usecases.history(queries=queries, store=self._store, now=self._clock.now())
