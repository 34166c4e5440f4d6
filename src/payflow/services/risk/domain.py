"""What risk knows: the rule set, the facts about a payment, and the assessment made from them. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated
from uuid import UUID

import msgspec

from payflow.contracts.risk import Assessed, AssessmentDetail, AssessPayment, RiskLevel
from payflow.kernel.iso4217 import DECIMALS

_Count = Annotated[int, msgspec.Meta(ge=1)]


class Points(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What each rule adds when it hits; a rule's name in an assessment is its field's name in capitals."""

    large_amount: _Count
    very_large_amount: _Count
    velocity: _Count
    sanctions_match: _Count
    kyc_not_verified: _Count
    currency_without_table: _Count


class Amounts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A currency's thresholds in its minor units: an amount above one hits, an amount equal to it does not."""

    large_above_minor: _Count
    very_large_above_minor: _Count


class RuleSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules and thresholds of one version; a version never changes its contents.

    More than `velocity_payments_max` payments of a customer in `velocity_window_s` seconds hit the velocity rule.
    """

    version: _Count
    high_at: _Count
    medium_at: _Count
    velocity_payments_max: _Count
    velocity_window_s: _Count
    points: Points
    currencies: dict[str, Amounts]

    def __post_init__(self) -> None:
        if self.medium_at >= self.high_at:
            raise ValueError("medium_at must be below high_at")
        if self.points.currency_without_table < self.high_at:
            raise ValueError("points.currency_without_table must reach high_at: such a payment is never waved through")
        unknown = sorted(self.currencies.keys() - DECIMALS.keys())
        if unknown:
            raise ValueError(f"currencies that ISO 4217 does not have: {', '.join(unknown)}")
        for currency, amounts in self.currencies.items():
            if amounts.large_above_minor >= amounts.very_large_above_minor:
                raise ValueError(f"currencies.{currency}: large_above_minor must be below very_large_above_minor")

    @property
    def velocity_window(self) -> timedelta:
        """How far back payments are counted; a payment leaves the window exactly this long after it was assessed."""
        return timedelta(seconds=self.velocity_window_s)


@dataclass(frozen=True, slots=True)
class Screening:
    """What ofac and kyc said about a payment and its debtor."""

    is_possible_sanctions_match: bool
    review_id: UUID | None
    list_version: str
    is_kyc_verified: bool


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules made of the facts."""

    level: RiskLevel
    points: int
    sanctions_points: int
    needs_otp: bool
    rules_hit: list[str]


class ExpectedCounts:
    """How many counted payments each customer has, as far as this process knows from its own last answers.

    Only ever an expectation: whoever uses it has the store compare it with the truth. Bounded: those not seen for the
    longest time are forgotten, and then expected to have none.
    """

    def __init__(self, *, at_most: int, customers_max: int = 20_000) -> None:
        self._at_most = at_most
        self._customers_max = customers_max
        self._counts: dict[str, int] = {}

    def of(self, customer_ids: Iterable[str]) -> dict[str, int]:
        """The expected count of each of these customers, in one order."""
        return {customer_id: self._counts.get(customer_id, 0) for customer_id in sorted(customer_ids)}

    def learn(self, counts: Mapping[str, int]) -> None:
        """The store has counted."""
        for customer_id, count in counts.items():
            # Put at the end, so that the first one is the one not seen for the longest time.
            self._counts.pop(customer_id, None)
            self._counts[customer_id] = min(count, self._at_most)
        while len(self._counts) > self._customers_max:
            del self._counts[next(iter(self._counts))]

    def add(self, customer_ids: Iterable[str]) -> None:
        """One payment more was stored for each of these (a customer may be named several times)."""
        added = Counter(customer_ids)
        self.learn({customer_id: self._counts.get(customer_id, 0) + count for customer_id, count in added.items()})


@dataclass(frozen=True, slots=True)
class Assessment:
    """A payment's assessment with the facts it was decided on, for exactly this amount, debtor and creditor.

    `payments_in_window` counts this payment and stops one above the rule's maximum: more makes no difference.
    """

    payment_id: UUID
    customer_id: str
    amount_minor: int
    currency: str
    debtor: str
    creditor: str
    screening: Screening
    payments_in_window: int
    verdict: Verdict
    rules_version: int
    assessed_at: datetime

    def is_for(self, command: AssessPayment) -> bool:
        """Whether it was made for the contents of this command."""
        return (self.customer_id, self.amount_minor, self.currency, self.debtor, self.creditor) == (
            command.customer_id,
            command.amount_minor,
            command.currency,
            command.debtor,
            command.creditor,
        )

    def as_answer(self) -> Assessed:
        """What the payment's driver needs to know."""
        return Assessed(
            payment_id=self.payment_id,
            level=self.verdict.level,
            points=self.verdict.points,
            sanctions_points=self.verdict.sanctions_points,
            needs_otp=self.verdict.needs_otp,
            is_possible_sanctions_match=self.screening.is_possible_sanctions_match,
            review_id=self.screening.review_id,
            rules_hit=self.verdict.rules_hit,
            rules_version=self.rules_version,
            assessed_at=self.assessed_at,
        )

    def as_detail(self) -> AssessmentDetail:
        """What operators and the audit see."""
        return AssessmentDetail(
            assessment=self.as_answer(),
            customer_id=self.customer_id,
            amount_minor=self.amount_minor,
            currency=self.currency,
            payments_last_24h=self.payments_in_window,
            is_kyc_verified=self.screening.is_kyc_verified,
            sanctions_list_version=self.screening.list_version,
        )
