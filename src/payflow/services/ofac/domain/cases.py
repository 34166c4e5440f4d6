"""Review cases: what a possible match leaves to a person, what that person may decide, when confirm is told again."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.ofac import (
    DecideReviewCase,
    MatchView,
    ReviewDecided,
    ReviewOwnPayment,
    ReviewState,
    ReviewView,
)
from payflow.kernel.errors import PayflowError
from payflow.services.ofac.domain.results import NameResult

# The decision is passed on at once by the process that took it; the repeating duty leaves it that long to do so.
DELIVERY_GRACE: Final = timedelta(seconds=5)
_PAUSE_FIRST: Final = timedelta(seconds=1)
# A confirm that was away for a night hears of a decision within five minutes of its return.
_PAUSE_MAX: Final = timedelta(minutes=5)
_DOUBLINGS_MAX: Final = 10


class ReviewCase(msgspec.Struct, frozen=True, kw_only=True):
    """A payment that a person must look at. `delivered_at` is when confirm is known to have heard the decision."""

    review_id: UUID
    payment_id: UUID
    customer_id: str
    matches: tuple[MatchView, ...]
    list_version: str
    opened_at: datetime
    state: ReviewState = ReviewState.OPEN
    decided_at: datetime | None = None
    decided_by: str | None = None
    comment: str | None = None
    delivery_tries: int = 0
    delivered_at: datetime | None = None

    @property
    def is_cleared(self) -> bool:
        """Whether the decision lets the payment go on."""
        return self.state is ReviewState.CLEARED


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """What confirm has to hear of a decided case, and how often it was told without taking it."""

    review_id: UUID
    payment_id: UUID
    is_cleared: bool
    decided_by: str
    tries: int


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """What one try to tell confirm came to: `delivered_at`, or else when the next try is due."""

    review_id: UUID
    tries: int
    deliver_after: datetime
    delivered_at: datetime | None


def matches_of(*, name: str, result: NameResult) -> list[MatchView]:
    """A name's matches as an officer sees them. Of a name that could not be compared only `screened_name` is filled."""
    if not result.best:
        return [_match(name, list_name="", entry_id="", matched_name="", score=0.0, programs=())]
    return [
        _match(
            name,
            list_name=match.list,
            entry_id=str(match.entry_id),
            matched_name=match.matched_name,
            score=match.score,
            programs=match.programs,
        )
        for match in result.best
    ]


def _match(
    name: str, *, list_name: str, entry_id: str, matched_name: str, score: float, programs: Iterable[str]
) -> MatchView:
    return MatchView(
        screened_name=name,
        list_name=list_name,
        entry_id=entry_id,
        matched_name=matched_name,
        score=score,
        programs=list(programs),
    )


def decide_case(*, case: ReviewCase, command: DecideReviewCase, now: datetime) -> ReviewCase | PayflowError:
    """The case with the officer's decision; the unchanged case where the same was decided before.

    ReviewOwnPayment for an officer who is the payment's customer; ReviewDecided where the decision was otherwise.
    """
    if command.officer_customer_id == case.customer_id:
        return ReviewOwnPayment()
    if case.state is ReviewState.OPEN:
        return msgspec.structs.replace(
            case,
            state=ReviewState.CLEARED if command.is_cleared else ReviewState.BLOCKED,
            decided_at=now,
            decided_by=command.decided_by,
            comment=command.comment,
        )
    return case if case.is_cleared == command.is_cleared else ReviewDecided()


def undelivered_decision_of(case: ReviewCase) -> Decision | None:
    """What confirm may not have heard yet; None for an open case or a delivered decision."""
    if case.decided_by is None or case.delivered_at is not None:
        return None
    return Decision(
        review_id=case.review_id,
        payment_id=case.payment_id,
        is_cleared=case.is_cleared,
        decided_by=case.decided_by,
        tries=case.delivery_tries,
    )


def delivery_of(*, decision: Decision, is_delivered: bool, now: datetime) -> Delivery:
    """A try to tell confirm; after the n-th failure the next is due in 2^(n-1) seconds, in five minutes at most."""
    pause = min(_PAUSE_FIRST * 2 ** min(decision.tries, _DOUBLINGS_MAX), _PAUSE_MAX)
    return Delivery(
        review_id=decision.review_id,
        tries=decision.tries + 1,
        deliver_after=now + pause,
        delivered_at=now if is_delivered else None,
    )


def view_of(case: ReviewCase) -> ReviewView:
    """The case as the contract tells it."""
    return ReviewView(
        review_id=case.review_id,
        payment_id=case.payment_id,
        customer_id=case.customer_id,
        state=case.state,
        matches=list(case.matches),
        list_version=case.list_version,
        opened_at=case.opened_at,
        decided_at=case.decided_at,
        decided_by=case.decided_by,
        comment=case.comment,
    )
