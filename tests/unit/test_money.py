"""Money is exact: what goes in comes out, and what is not an amount is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.kernel.iso4217 import DECIMALS
from payflow.kernel.money import CurrencyMismatch, InvalidAmount, Money, UnknownCurrency

currencies = st.sampled_from(sorted(DECIMALS))


@pytest.mark.parametrize(
    ("text", "currency", "minor_units"),
    [
        ("1000.00", "USD", 100_000),
        ("1000", "USD", 100_000),
        ("0.01", "EUR", 1),
        ("5", "JPY", 5),
        ("1.234", "KWD", 1234),
        ("19.99", "EUR", 1999),
        ("999999999999999.99", "USD", 99_999_999_999_999_999),
    ],
)
def test_a_plain_decimal_is_read_exactly(text: str, currency: str, minor_units: int) -> None:
    assert Money.from_decimal(text, currency) == Money(minor_units, currency)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0.00",
        "-1",
        "+1",
        "1e3",
        "1E3",
        ".5",
        "5.",
        "01",
        "1,000.00",
        "1_000",
        "NaN",
        "Infinity",
        "0x10",
        "19.999",
        "١٢",
        "１２",
        "1000000000000000000",
        "",
        " 1",
        "1 ",
        "1\n",
        "1" * 500,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(InvalidAmount):
        Money.from_decimal(text, "EUR")


def test_a_fraction_of_a_yen_is_refused() -> None:
    with pytest.raises(InvalidAmount):
        Money.from_decimal("1.5", "JPY")


def test_an_unknown_currency_is_refused() -> None:
    with pytest.raises(UnknownCurrency):
        Money.from_decimal("1.00", "XXX")


@given(st.integers(1, 10**17 - 1), currencies)
def test_writing_and_reading_gives_the_same_amount(minor_units: int, currency: str) -> None:
    money = Money(minor_units, currency)

    assert Money.from_decimal(money.to_decimal(), currency) == money


@given(st.integers(-(10**15), 10**15), st.lists(st.integers(0, 1000), min_size=1, max_size=20), currencies)
def test_the_parts_of_a_split_add_up_to_the_whole(minor_units: int, ratios: list[int], currency: str) -> None:
    if sum(ratios) == 0:
        ratios[0] = 1
    parts = Money(minor_units, currency).allocate(ratios)

    assert sum(part.minor_units for part in parts) == minor_units
    assert len(parts) == len(ratios)


def test_amounts_of_two_currencies_do_not_add_up() -> None:
    with pytest.raises(CurrencyMismatch):
        _ = Money(1, "EUR") + Money(1, "USD")


def test_a_negative_amount_is_told_to_be_too_small_rather_than_no_number() -> None:
    with pytest.raises(InvalidAmount, match=r"^The amount must be greater than zero\.$"):
        Money.from_decimal("-1", "EUR")
