"""Points, level and OTP: the rules as tables of cases."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.contracts.risk import AssessPayment, RiskLevel
from payflow.services.risk.domain import ExpectedCounts, Screening, Verdict
from payflow.services.risk.rules import default_rules, read_rules
from payflow.services.risk.rules.evaluate import assess_in_order, evaluate
from tests.builders import NOON, new_id

RULES = default_rules()
LOW, MEDIUM, HIGH = RiskLevel.LOW, RiskLevel.MEDIUM, RiskLevel.HIGH


def a_screening(*, is_match: bool = False, is_verified: bool = True) -> Screening:
    return Screening(
        is_possible_sanctions_match=is_match,
        review_id=new_id() if is_match else None,
        list_version="1",
        is_kyc_verified=is_verified,
    )


def a_verdict(
    amount_minor: int = 100,
    *,
    currency: str = "USD",
    payments: int = 1,
    is_match: bool = False,
    is_verified: bool = True,
) -> Verdict:
    return evaluate(
        amount_minor=amount_minor,
        currency=currency,
        payments_in_window=payments,
        screening=a_screening(is_match=is_match, is_verified=is_verified),
        rules=RULES,
    )


@pytest.mark.parametrize(
    ("amount_minor", "payments", "is_match", "is_verified", "points", "level", "needs_otp"),
    [
        (500_000, 1, False, True, 0, LOW, False),
        (500_001, 1, False, True, 30, MEDIUM, False),
        (1_000_000, 1, False, True, 30, MEDIUM, False),
        (1_000_001, 1, False, True, 50, HIGH, True),
        (100, 5, False, True, 0, LOW, False),
        (100, 6, False, True, 25, MEDIUM, False),
        (500_001, 6, False, True, 55, HIGH, True),
        (100, 1, False, False, 40, MEDIUM, False),
        (500_001, 1, False, False, 70, HIGH, True),
        (100, 6, False, False, 65, HIGH, True),
        (100, 1, True, True, 100, HIGH, False),
        (500_001, 1, True, True, 130, HIGH, False),
        (1_000_001, 1, True, True, 150, HIGH, True),
        (100, 6, True, False, 165, HIGH, True),
        (1_000_001, 6, True, False, 215, HIGH, True),
    ],
)
def test_points_add_up_to_a_level_and_an_otp(
    amount_minor: int, payments: int, is_match: bool, is_verified: bool, points: int, level: RiskLevel, needs_otp: bool
) -> None:
    verdict = a_verdict(amount_minor, payments=payments, is_match=is_match, is_verified=is_verified)

    assert (verdict.points, verdict.level, verdict.needs_otp) == (points, level, needs_otp)
    assert verdict.sanctions_points == (100 if is_match else 0)


@pytest.mark.parametrize(
    ("currency", "large", "very_large"),
    [
        ("USD", 500_000, 1_000_000),
        ("EUR", 500_000, 1_000_000),
        ("GBP", 500_000, 1_000_000),
        ("CHF", 500_000, 1_000_000),
        ("JPY", 750_000, 1_500_000),
        ("KWD", 1_500_000, 3_000_000),
    ],
)
def test_each_currency_has_its_own_thresholds_and_only_amounts_above_them_hit(
    currency: str, large: int, very_large: int
) -> None:
    points = [a_verdict(amount, currency=currency).points for amount in (large, large + 1, very_large, very_large + 1)]

    assert points == [0, 30, 30, 50]


def test_a_currency_without_a_table_is_high_and_needs_an_otp_whatever_the_amount() -> None:
    verdict = a_verdict(1, currency="XAF")

    assert (verdict.level, verdict.needs_otp, verdict.rules_hit) == (HIGH, True, ["CURRENCY_WITHOUT_TABLE"])


def test_the_rules_that_hit_are_named() -> None:
    verdict = a_verdict(1_000_001, payments=6, is_match=True, is_verified=False)

    assert verdict.rules_hit == ["LARGE_AMOUNT", "VERY_LARGE_AMOUNT", "VELOCITY", "SANCTIONS_MATCH", "KYC_NOT_VERIFIED"]


@given(
    amount_minor=st.integers(1, 10**15),
    currency=st.sampled_from(["USD", "JPY", "KWD", "XAF"]),
    payments=st.integers(1, 20),
    is_match=st.booleans(),
    is_verified=st.booleans(),
)
def test_a_sanctions_match_changes_the_level_but_never_whether_an_otp_is_needed(
    amount_minor: int, currency: str, payments: int, is_match: bool, is_verified: bool
) -> None:
    without = a_verdict(amount_minor, currency=currency, payments=payments, is_verified=is_verified)

    verdict = a_verdict(amount_minor, currency=currency, payments=payments, is_match=is_match, is_verified=is_verified)

    assert verdict.needs_otp == without.needs_otp == (without.level is HIGH)
    assert verdict.level is (HIGH if is_match else without.level)


def test_payments_of_one_customer_in_one_batch_count_each_other_in_order() -> None:
    commands = [
        AssessPayment(
            payment_id=new_id(),
            customer_id=customer_id,
            amount_minor=100,
            currency="USD",
            debtor="A",
            creditor="B",
            party_names=["Ada"],
        )
        for customer_id in ("one", "two", "one", "one", "two", "one")
    ]

    assessments = assess_in_order(
        commands=commands, screenings=[a_screening()] * 6, earlier={"one": 3}, rules=RULES, now=NOON
    )

    assert [assessment.payments_in_window for assessment in assessments] == [4, 1, 5, 6, 2, 6]
    assert [assessment.verdict.points for assessment in assessments] == [0, 0, 0, 25, 0, 25]


def test_the_rules_of_this_release_count_a_day() -> None:
    assert RULES.velocity_window == timedelta(hours=24)


DEFAULT_TEXT = """
version = 2
high_at = 50
medium_at = 25
velocity_payments_max = 5
velocity_window_s = 86400
[points]
large_amount = 30
very_large_amount = 20
velocity = 25
sanctions_match = 100
kyc_not_verified = 40
currency_without_table = 50
[currencies]
USD = { large_above_minor = 500000, very_large_above_minor = 1000000 }
"""


@pytest.mark.parametrize(
    ("before", "after", "complaint"),
    [
        ("version = 2", "", "version"),
        ("version = 2", "version = 0", "version"),
        ("medium_at = 25", "medium_at = 50", "medium_at must be below high_at"),
        ("velocity = 25", "velocity = -25", "velocity"),
        ("velocity = 25", "velocity = 25\nvelocty = 30", "velocty"),
        ("currency_without_table = 50", "currency_without_table = 49", "currency_without_table"),
        ("USD =", "USX =", "USX"),
        ("very_large_above_minor = 1000000", "very_large_above_minor = 500000", "USD"),
        ("large_above_minor = 500000", "large_above_minor = 500000.5", "large_above_minor"),
        ("high_at = 50", "high_at =", "line"),
    ],
)
def test_a_rule_set_that_is_incomplete_or_contradicts_itself_is_refused_by_name(
    before: str, after: str, complaint: str
) -> None:
    text = DEFAULT_TEXT.replace(before, after, 1)

    with pytest.raises(ValueError, match=complaint):
        read_rules(text)


def test_a_complete_rule_set_is_read() -> None:
    rules = read_rules(DEFAULT_TEXT)

    assert (rules.version, rules.points, rules.currencies["USD"]) == (2, RULES.points, RULES.currencies["USD"])


def test_expected_counts_follow_what_was_stored_and_what_the_store_has_counted() -> None:
    counts = ExpectedCounts(at_most=5)

    counts.add(["ada", "ada", "grace"])
    counts.learn({"grace": 9})

    assert counts.of(["grace", "ada", "new"]) == {"ada": 2, "grace": 5, "new": 0}


def test_the_customers_not_seen_for_the_longest_time_are_forgotten_first() -> None:
    counts = ExpectedCounts(at_most=5, customers_max=2)

    counts.add(["ada"])
    counts.add(["grace"])
    counts.add(["ada"])
    counts.add(["linus"])

    assert counts.of(["ada", "grace", "linus"]) == {"ada": 2, "grace": 0, "linus": 1}
