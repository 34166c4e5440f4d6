"""Review cases: officers read them, decide them, and confirm hears of each decision until it has taken it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from payflow.contracts.confirm import DecideReview, GetPayment, PaymentNotFound, PaymentState, PaymentView
from payflow.contracts.ofac import (
    DecideReviewCase,
    GetDecision,
    GetReview,
    ListReviews,
    PaymentDecision,
    ReviewNotFound,
    ReviewPage,
    ReviewState,
    ReviewView,
)
from payflow.contracts.operation import Answers
from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.services.ofac.domain.cases import DELIVERY_GRACE, Decision, ReviewCase, decide_case, delivery_of, view_of
from payflow.services.ofac.ports import Payments, Store
from payflow.services.ofac.usecases.events import EventMaker

_PAGE_MAX: Final = 200
_DELIVERIES_MAX: Final = 100
# In these a payment has not heard of the decision yet: RECEIVED too, where the officer was faster than confirm.
_BEFORE_DECISION: Final = frozenset({PaymentState.RECEIVED, PaymentState.UNDER_REVIEW})


async def get_reviews(*, queries: Sequence[GetReview], store: Store) -> Answers[ReviewView]:
    """Cases by id. Items may be ReviewNotFound."""
    known = await store.cases([query.review_id for query in queries])
    return [view_of(known[query.review_id]) if query.review_id in known else ReviewNotFound() for query in queries]


async def get_decisions(*, queries: Sequence[GetDecision], store: Store) -> Answers[PaymentDecision]:
    """How payments' cases stand. Items may be ReviewNotFound."""
    decisions = await store.decisions_of([query.payment_id for query in queries])
    return [decisions.get(query.payment_id) or ReviewNotFound() for query in queries]


async def list_reviews(*, queries: Sequence[ListReviews], store: Store) -> Answers[ReviewPage]:
    """A page of cases for each query, newest first, at most 200 on a page."""
    pages: Answers[ReviewPage] = []
    for query in queries:
        limit = min(max(query.limit, 1), _PAGE_MAX)
        cases = await store.newest_cases(state=query.state, before=query.cursor, limit=limit + 1)
        page = cases[:limit]
        next_cursor = page[-1].review_id if len(cases) > limit else None
        pages.append(ReviewPage(reviews=[view_of(case) for case in page], next_cursor=next_cursor))
    return pages


async def decide(
    *, commands: Sequence[DecideReviewCase], store: Store, events: EventMaker, now: datetime
) -> Answers[ReviewCase]:
    """Store the officers' decisions with their events. One decision per case: the same again changes nothing.

    Items may be ReviewNotFound, ReviewOwnPayment, ReviewDecided. Nobody else is told yet: see `deliver`.
    """
    answers: Answers[ReviewCase] = []
    async with store.transaction() as transaction:
        cases = await transaction.lock_cases([command.review_id for command in commands])
        decided: list[ReviewCase] = []
        for command in commands:
            case = cases.get(command.review_id)
            answer = ReviewNotFound() if case is None else decide_case(case=case, command=command, now=now)
            if isinstance(answer, ReviewCase) and case is not None and case.state is ReviewState.OPEN:
                cases[command.review_id] = answer
                decided.append(answer)
            answers.append(answer)
        if decided:
            await transaction.save_decisions(cases=decided, deliver_after=now + DELIVERY_GRACE)
            await transaction.append_events([events.decided(case) for case in decided])
    return answers


async def deliver(*, decisions: Sequence[Decision], store: Store, payments: Payments, now: datetime) -> list[Decision]:
    """Tell confirm of decisions; those it has not taken are returned, and are due again later.

    Safe to repeat. A payment that confirm does not know (money that came in), or that has left the review, has nothing
    more to hear.
    """
    if not decisions:
        return []
    taken = await _tell(decisions, payments)
    doubtful = [decision for decision in decisions if taken[decision.review_id] is None]
    taken.update(await _moved_on(doubtful, payments))
    await store.save_deliveries(
        [
            delivery_of(decision=decision, is_delivered=taken[decision.review_id] is True, now=now)
            for decision in decisions
        ]
    )
    return [decision for decision in decisions if not taken[decision.review_id]]


async def deliver_due(*, store: Store, payments: Payments, now: datetime) -> list[Decision]:
    """Tell confirm again of decisions that it has not taken yet; those that are still not taken are returned."""
    decisions = await store.undelivered(now=now, limit=_DELIVERIES_MAX)
    return await deliver(decisions=decisions, store=store, payments=payments, now=now)


async def _tell(decisions: Sequence[Decision], payments: Payments) -> dict[UUID, bool | None]:
    """Whether confirm took each decision; None where it refused: then the payment's state tells."""
    commands = [
        DecideReview(payment_id=decision.payment_id, is_cleared=decision.is_cleared, decided_by=decision.decided_by)
        for decision in decisions
    ]
    try:
        answers = await payments.decide_review(commands)
    except PayflowError:
        return {decision.review_id: False for decision in decisions}
    return {decision.review_id: _is_taken(answer) for decision, answer in zip(decisions, answers, strict=True)}


def _is_taken(answer: PaymentView | PayflowError) -> bool | None:
    if isinstance(answer, PaymentView | PaymentNotFound):
        return True
    return False if isinstance(answer, Unavailable | UnknownOutcome) else None


async def _moved_on(decisions: Sequence[Decision], payments: Payments) -> dict[UUID, bool]:
    """Whether each payment has left the review, whoever or whatever ended it."""
    if not decisions:
        return {}
    queries = [GetPayment(transaction_id=str(decision.payment_id), customer_id=None) for decision in decisions]
    try:
        answers = await payments.get(queries)
    except PayflowError:
        return {decision.review_id: False for decision in decisions}
    return {
        decision.review_id: isinstance(answer, PaymentNotFound)
        or (isinstance(answer, PaymentView) and answer.state not in _BEFORE_DECISION)
        for decision, answer in zip(decisions, answers, strict=True)
    }
