"""The ofac service: sanctions screening of names, and the review cases that possible matches open."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Conflict, Rejection


class ScreeningOutcome(StrEnum):
    CLEAR = "CLEAR"
    POSSIBLE_MATCH = "POSSIBLE_MATCH"


class ReviewState(StrEnum):
    OPEN = "OPEN"
    CLEARED = "CLEARED"
    BLOCKED = "BLOCKED"


class ReviewNotFound(Rejection):
    """No such review case."""

    code = "REVIEW_NOT_FOUND"


class ReviewDecided(Conflict):
    """The case was decided already, otherwise."""

    code = "REVIEW_ALREADY_DECIDED"


class ReviewOwnPayment(Rejection):
    """Nobody decides about their own payment."""

    code = "REVIEW_OWN_PAYMENT"


class ScreenPayment(msgspec.Struct, frozen=True, kw_only=True):
    """Screen all names of a payment. A repeat for the same payment id opens no second case."""

    payment_id: UUID
    customer_id: str
    names: list[str]
    country: str | None = None


class Screened(msgspec.Struct, frozen=True, kw_only=True):
    outcome: ScreeningOutcome
    review_id: UUID | None
    list_version: str


class MatchView(msgspec.Struct, frozen=True, kw_only=True):
    """A listed name close to a screened one, score 0 to 100.

    Of a name that could not be compared (empty, too long, a script that cannot be transliterated) only `screened_name`
    is filled.
    """

    screened_name: str
    list_name: str
    entry_id: str
    matched_name: str
    score: float
    programs: list[str]


class ReviewView(msgspec.Struct, frozen=True, kw_only=True):
    """A review case as a compliance officer sees it."""

    review_id: UUID
    payment_id: UUID
    customer_id: str
    state: ReviewState
    matches: list[MatchView]
    list_version: str
    opened_at: datetime
    decided_at: datetime | None
    decided_by: str | None
    comment: str | None


class GetReview(msgspec.Struct, frozen=True, kw_only=True):
    review_id: UUID


class GetDecision(msgspec.Struct, frozen=True, kw_only=True):
    payment_id: UUID


class PaymentDecision(msgspec.Struct, frozen=True, kw_only=True):
    """How a payment's review case stands, and since when it is decided."""

    payment_id: UUID
    state: ReviewState
    decided_at: datetime | None = None


class ListReviews(msgspec.Struct, frozen=True, kw_only=True):
    state: ReviewState | None = None
    cursor: UUID | None = None
    limit: int = 50


class ReviewPage(msgspec.Struct, frozen=True, kw_only=True):
    reviews: list[ReviewView]
    next_cursor: UUID | None


class DecideReviewCase(msgspec.Struct, frozen=True, kw_only=True):
    """Clear or block. `officer_customer_id` is the officer's own customer id, if the officer is also a customer."""

    review_id: UUID
    is_cleared: bool
    decided_by: str
    comment: str
    officer_customer_id: str | None = None


class ScreenName(msgspec.Struct, frozen=True, kw_only=True):
    """An operator's look-up of one name; opens no case."""

    name: str
    country: str | None = None


class NameScreened(msgspec.Struct, frozen=True, kw_only=True):
    outcome: ScreeningOutcome
    matches: list[MatchView]
    list_version: str


class DescribeLists(msgspec.Struct, frozen=True, kw_only=True):
    """Which lists are loaded."""


class ListsDescribed(msgspec.Struct, frozen=True, kw_only=True):
    list_version: str
    list_date: str
    entries: int
    names: int
    loaded_at: datetime


_KEEPS: Final = {"outcome": frozenset({ScreeningOutcome.POSSIBLE_MATCH})}


class Ofac(Protocol):
    """Operations of the ofac service."""

    service: ClassVar[str] = "ofac"

    @operation(callers={"risk", "partner_bank"}, tells=("outcome", "review_id"), keeps=_KEEPS)
    async def screen(self, commands: list[ScreenPayment]) -> Answers[Screened]: ...

    @operation(callers={"gateway", "cli"})
    async def screen_names(self, queries: list[ScreenName]) -> Answers[NameScreened]: ...

    @operation(callers={"gateway", "cli"})
    async def get_reviews(self, queries: list[GetReview]) -> Answers[ReviewView]: ...

    @operation(callers={"partner_bank"})
    async def get_decisions(self, queries: list[GetDecision]) -> Answers[PaymentDecision]: ...

    @operation(callers={"gateway", "cli"})
    async def list_reviews(self, queries: list[ListReviews]) -> Answers[ReviewPage]: ...

    @operation(callers={"gateway"}, timeout_s=10, tells=("review_id", "state"))
    async def decide(self, commands: list[DecideReviewCase]) -> Answers[ReviewView]: ...

    @operation(callers={"gateway", "cli"})
    async def describe_lists(self, queries: list[DescribeLists]) -> Answers[ListsDescribed]: ...
