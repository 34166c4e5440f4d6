"""Adapts the contract to the use cases: wires store, lists, clock and ids, and passes decisions on to confirm."""

from __future__ import annotations

import asyncio
from collections import Counter as Tally
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from payflow.contracts.ofac import (
    DecideReviewCase,
    DescribeLists,
    GetDecision,
    GetReview,
    ListReviews,
    ListsDescribed,
    NameScreened,
    PaymentDecision,
    ReviewPage,
    ReviewView,
    Screened,
    ScreenName,
    ScreenPayment,
)
from payflow.contracts.operation import Answers
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError
from payflow.platform.context import current_traceparent
from payflow.platform.postgres import repeat_then_halve
from payflow.services.ofac.domain.cases import Decision, ReviewCase, undelivered_decision_of, view_of
from payflow.services.ofac.domain.proofs import ClearedNames
from payflow.services.ofac.index import LoadedLists
from payflow.services.ofac.ports import Payments, Store
from payflow.services.ofac.usecases import reviews, screening
from payflow.services.ofac.usecases.events import EventMaker

log = structlog.get_logger(__name__)

# An officer need not wait longer for confirm: the decision stands, and the repeating duty passes it on.
_DELIVERY_WAIT_S: Final = 3.0
_screened: Final = Counter("payflow_screened_payments_total", "Payments screened.", ["outcome"])
_reviews_open: Final = Gauge("payflow_reviews_open", "Review cases that nobody has decided yet.")
_oldest_review: Final = Gauge("payflow_oldest_review_age_seconds", "Age of the oldest open review case; 0: none.")


class OfacApi:
    """Implements contracts.ofac.Ofac."""

    def __init__(
        self,
        *,
        store: Store,
        payments: Payments,
        lists: LoadedLists,
        proof_key: bytes,
        clock: Clock,
        ids: Ids,
        delivery_wait_s: float = _DELIVERY_WAIT_S,
    ) -> None:
        self._store = store
        self._payments = payments
        self._lists = lists
        self._cleared = ClearedNames(key=proof_key, list_version=lists.index.version)
        self._clock = clock
        self._ids = ids
        self._loaded_at: datetime = clock.now()
        self._delivery_wait_s = delivery_wait_s

    async def screen(self, commands: list[ScreenPayment]) -> Answers[Screened]:
        answers = await repeat_then_halve(self._screen, commands)
        outcomes = Tally(answer.outcome for answer in answers if isinstance(answer, Screened))
        for outcome, count in outcomes.items():
            _screened.labels(outcome.value).inc(count)
        return answers

    async def screen_names(self, queries: list[ScreenName]) -> Answers[NameScreened]:
        return await screening.screen_names(queries=queries, index=self._lists.index)

    async def get_reviews(self, queries: list[GetReview]) -> Answers[ReviewView]:
        return await reviews.get_reviews(queries=queries, store=self._store)

    async def get_decisions(self, queries: list[GetDecision]) -> Answers[PaymentDecision]:
        return await reviews.get_decisions(queries=queries, store=self._store)

    async def list_reviews(self, queries: list[ListReviews]) -> Answers[ReviewPage]:
        return await reviews.list_reviews(queries=queries, store=self._store)

    async def decide(self, commands: list[DecideReviewCase]) -> Answers[ReviewView]:
        answers = await repeat_then_halve(self._decide, commands)
        cases = {answer.review_id: answer for answer in answers if isinstance(answer, ReviewCase)}
        await self._pass_on([decision for decision in map(undelivered_decision_of, cases.values()) if decision])
        return [view_of(answer) if isinstance(answer, ReviewCase) else answer for answer in answers]

    async def describe_lists(self, queries: list[DescribeLists]) -> Answers[ListsDescribed]:
        described = ListsDescribed(
            list_version=self._lists.index.version,
            list_date=self._lists.list_date,
            entries=self._lists.entries,
            names=len(self._lists.index.names),
            loaded_at=self._loaded_at,
        )
        return [described for _ in queries]

    async def deliver_due(self) -> None:
        """Tell confirm again of decisions that it has not taken yet: a background duty."""
        now = self._clock.now()
        waiting = await reviews.deliver_due(store=self._store, payments=self._payments, now=now)
        _log_waiting(waiting)

    async def measure_open_reviews(self) -> None:
        """Tell by metrics how many cases are open, and how old the oldest is: a background duty."""
        count, oldest = await self._store.open_reviews()
        _reviews_open.set(count)
        _oldest_review.set(0 if oldest is None else max(0.0, (self._clock.now() - oldest).total_seconds()))

    async def _screen(self, batch: Sequence[ScreenPayment]) -> Answers[Screened]:
        return await screening.screen(
            commands=batch,
            index=self._lists.index,
            cleared=self._cleared,
            store=self._store,
            ids=self._ids,
            events=self._events(),
            now=self._clock.now(),
        )

    async def _decide(self, batch: Sequence[DecideReviewCase]) -> Answers[ReviewCase]:
        return await reviews.decide(commands=batch, store=self._store, events=self._events(), now=self._clock.now())

    async def _pass_on(self, decisions: Sequence[Decision]) -> None:
        """Tell confirm at once. Whatever goes wrong here, the decision stands and the duty repeats the call."""
        try:
            async with asyncio.timeout(self._delivery_wait_s):
                waiting = await reviews.deliver(
                    decisions=decisions, store=self._store, payments=self._payments, now=self._clock.now()
                )
        except (PayflowError, TimeoutError) as error:
            log.warning("review.delivery_failed", error=repr(error))
            return
        _log_waiting(waiting)

    def _events(self) -> EventMaker:
        return EventMaker(ids=self._ids, now=self._clock.now(), traceparent=current_traceparent.get())


def _log_waiting(decisions: Sequence[Decision]) -> None:
    for decision in decisions:
        log.warning("review.delivery_waits", review_id=decision.review_id, tries=decision.tries + 1)
