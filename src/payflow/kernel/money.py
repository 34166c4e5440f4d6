"""Money as integer minor units. No binary float comes near it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import msgspec

from payflow.kernel.errors import Rejection
from payflow.kernel.iso4217 import DECIMALS

# Two below bigint's 19 digits: sums over a batch stay inside bigint too.
DIGITS_MAX: Final = 17
# ASCII digits only: `\d` would also take Arabic-Indic and other digits that some readers take for something else.
_PLAIN_DECIMAL: Final = re.compile(r"(0|[1-9][0-9]*)(?:\.([0-9]+))?", re.ASCII)


class InvalidAmount(Rejection):
    """The amount is not a positive plain decimal with at most the currency's decimals."""

    code = "INVALID_AMOUNT"


class UnknownCurrency(Rejection):
    """The code is not an active ISO 4217 currency."""

    code = "UNKNOWN_CURRENCY"


class CurrencyMismatch(Rejection):
    """Two amounts or accounts of different currencies meet where only one currency can be."""

    code = "CURRENCY_MISMATCH"


def decimals_of(currency: str) -> int:
    """The number of decimals of a currency: JPY 0, EUR 2, KWD 3. Raises UnknownCurrency."""
    try:
        return DECIMALS[currency]
    except KeyError:
        raise UnknownCurrency(f"{currency[:8]!r} is not an ISO 4217 currency code.") from None


class Money(msgspec.Struct, frozen=True, order=False):
    """An amount in minor units (cents, yen, fils) of an ISO 4217 currency."""

    minor_units: int
    currency: str

    @classmethod
    def from_decimal(cls, text: str, currency: str) -> Money:
        """Read a plain decimal exactly: "19.99" EUR is 1999 minor units; "19.999" raises InvalidAmount.

        No sign, exponent, blank, leading zero, or digit outside ASCII; zero and more than 17 digits are refused too.
        """
        decimals = decimals_of(currency)
        match = _PLAIN_DECIMAL.fullmatch(text) if len(text) <= 40 else None
        if match is None and text.startswith("-"):
            raise InvalidAmount("The amount must be greater than zero.")
        if match is None:
            raise InvalidAmount("The amount must be a plain decimal number such as 1000.00.")
        whole, fraction = match.group(1), match.group(2) or ""
        if len(fraction) > decimals:
            raise InvalidAmount(f"{currency} has {decimals} decimals; the amount has {len(fraction)}.")
        minor_units = int(whole + fraction.ljust(decimals, "0"))
        if minor_units <= 0:
            raise InvalidAmount("The amount must be greater than zero.")
        if len(str(minor_units)) > DIGITS_MAX:
            raise InvalidAmount("The amount is too large.")
        return cls(minor_units, currency)

    def to_decimal(self) -> str:
        """The amount with exactly the currency's decimals: 100000 USD is "1000.00", 5 JPY is "5"."""
        return format_minor(self.minor_units, self.currency)

    def __add__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(self.minor_units + other.minor_units, self.currency)

    def __sub__(self, other: Money) -> Money:
        self._same_currency(other)
        return Money(self.minor_units - other.minor_units, self.currency)

    def __lt__(self, other: Money) -> bool:
        self._same_currency(other)
        return self.minor_units < other.minor_units

    def __le__(self, other: Money) -> bool:
        self._same_currency(other)
        return self.minor_units <= other.minor_units

    def allocate(self, ratios: Sequence[int]) -> list[Money]:
        """Split by ratios so that the parts add up to the whole; the first parts take what does not divide."""
        total = sum(ratios)
        if total <= 0 or any(ratio < 0 for ratio in ratios):
            raise ValueError("ratios must not be negative and must not all be zero")
        sign = -1 if self.minor_units < 0 else 1
        units = abs(self.minor_units)
        shares = [units * ratio // total for ratio in ratios]
        remainder = units - sum(shares)
        takers = [index for index, ratio in enumerate(ratios) if ratio]
        for index in takers[:remainder]:
            shares[index] += 1
        return [Money(sign * share, self.currency) for share in shares]

    def _same_currency(self, other: Money) -> None:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} cannot be combined.")


def format_minor(minor_units: int, currency: str) -> str:
    """Minor units as a plain decimal with exactly the currency's decimals; negative amounts keep their sign."""
    decimals = decimals_of(currency)
    return f"{Decimal(minor_units).scaleb(-decimals):.{decimals}f}"
