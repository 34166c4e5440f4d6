"""Facts in, points out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import datetime

from payflow.contracts.risk import AssessPayment, RiskLevel
from payflow.services.risk.domain import Assessment, RuleSet, Screening, Verdict

SANCTIONS_MATCH = "SANCTIONS_MATCH"


def evaluate(
    *, amount_minor: int, currency: str, payments_in_window: int, screening: Screening, rules: RuleSet
) -> Verdict:
    """The points of a payment and what follows from them.

    `amount_minor` is in minor units of `currency`; `payments_in_window` counts this payment. A one-time password never
    cures a sanctions match, so `needs_otp` looks at the points without it.
    """
    hits = dict(
        _hits(
            amount_minor=amount_minor,
            currency=currency,
            payments_in_window=payments_in_window,
            screening=screening,
            rules=rules,
        )
    )
    points = sum(hits.values())
    sanctions_points = hits.get(SANCTIONS_MATCH, 0)
    return Verdict(
        level=_level(points, rules),
        points=points,
        sanctions_points=sanctions_points,
        needs_otp=points - sanctions_points >= rules.high_at,
        rules_hit=list(hits),
    )


def _hits(
    *, amount_minor: int, currency: str, payments_in_window: int, screening: Screening, rules: RuleSet
) -> Iterator[tuple[str, int]]:
    points = rules.points
    amounts = rules.currencies.get(currency)
    if amounts is None:
        yield "CURRENCY_WITHOUT_TABLE", points.currency_without_table
    else:
        if amount_minor > amounts.large_above_minor:
            yield "LARGE_AMOUNT", points.large_amount
        if amount_minor > amounts.very_large_above_minor:
            yield "VERY_LARGE_AMOUNT", points.very_large_amount
    if payments_in_window > rules.velocity_payments_max:
        yield "VELOCITY", points.velocity
    if screening.is_possible_sanctions_match:
        yield SANCTIONS_MATCH, points.sanctions_match
    if not screening.is_kyc_verified:
        yield "KYC_NOT_VERIFIED", points.kyc_not_verified


def _level(points: int, rules: RuleSet) -> RiskLevel:
    if points >= rules.high_at:
        return RiskLevel.HIGH
    return RiskLevel.MEDIUM if points >= rules.medium_at else RiskLevel.LOW


def assess_in_order(
    *,
    commands: Iterable[AssessPayment],
    screenings: Iterable[Screening],
    earlier: Mapping[str, int],
    rules: RuleSet,
    now: datetime,
) -> list[Assessment]:
    """Assess a batch item by item: payments of one customer count each other, in the order given.

    `earlier` is each customer's number of counted payments in the window before this batch.
    """
    counts = Counter(earlier)
    assessments = []
    for command, screening in zip(commands, screenings, strict=True):
        counts[command.customer_id] += 1
        payments_in_window = min(counts[command.customer_id], rules.velocity_payments_max + 1)
        verdict = evaluate(
            amount_minor=command.amount_minor,
            currency=command.currency,
            payments_in_window=payments_in_window,
            screening=screening,
            rules=rules,
        )
        assessments.append(
            Assessment(
                payment_id=command.payment_id,
                customer_id=command.customer_id,
                amount_minor=command.amount_minor,
                currency=command.currency,
                debtor=command.debtor,
                creditor=command.creditor,
                screening=screening,
                payments_in_window=payments_in_window,
                verdict=verdict,
                rules_version=rules.version,
                assessed_at=now,
            )
        )
    return assessments


def assess_again(assessment: Assessment, screening: Screening, *, rules: RuleSet, now: datetime) -> Assessment:
    """The assessment as it would be with this screening and these rules; the customer's other payments as counted."""
    verdict = evaluate(
        amount_minor=assessment.amount_minor,
        currency=assessment.currency,
        payments_in_window=assessment.payments_in_window,
        screening=screening,
        rules=rules,
    )
    return replace(assessment, screening=screening, verdict=verdict, rules_version=rules.version, assessed_at=now)
