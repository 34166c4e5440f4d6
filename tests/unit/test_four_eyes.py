"""The limit above which a second person is asked."""

from __future__ import annotations

import pytest

from payflow.kernel.four_eyes import FourEyes


@pytest.mark.parametrize(
    ("setting", "total_minor", "currency", "is_asked"),
    [
        ("1000", 100_000, "USD", False),
        ("1000", 100_001, "USD", True),
        ("1000", 1_000, "JPY", False),
        ("1000", 1_001, "JPY", True),
        ("1000", 1_000_000, "KWD", False),
        ("1000", 1_000_001, "KWD", True),
        ("1000.50", 100_050, "EUR", False),
        ("0", 1, "EUR", True),
        ("1000, JPY=150000", 150_000, "JPY", False),
        ("1000,JPY=150000,EUR=10", 1_001, "EUR", True),
        ("1000,JPY=150000,EUR=10", 1_001, "USD", False),
    ],
)
def test_above_the_limit_of_its_currency_a_second_person_is_asked(
    setting: str, total_minor: int, currency: str, is_asked: bool
) -> None:
    assert FourEyes.parse(setting).asks(total_minor, currency) is is_asked


@pytest.mark.parametrize("setting", ["", "x", "-1", "1000,XXQ=1", "1000,JPY", "NaN", "Infinity", "1000;JPY=1"])
def test_a_limit_that_says_nothing_clear_stops_the_start(setting: str) -> None:
    with pytest.raises(ValueError, match="write"):
        FourEyes.parse(setting)
