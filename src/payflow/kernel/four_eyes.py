"""Four eyes: the limit above which a second person is asked, as settings give it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

from payflow.kernel.iso4217 import DECIMALS


@dataclass(frozen=True, slots=True)
class FourEyes:
    """Up to which sum one person's word moves money, in whole units of a currency; above it a second one is asked."""

    above: Decimal
    by_currency: dict[str, Decimal] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> FourEyes:
        """Read "1000", or "1000,JPY=150000" with exceptions by currency. Raises ValueError."""
        general, *exceptions = (part.strip() for part in text.split(","))
        by_currency = {}
        for exception in exceptions:
            currency, _, amount = exception.partition("=")
            if currency not in DECIMALS:
                raise ValueError(f"{currency!r} is no currency of ISO 4217: write an amount, then JPY=150000 and so on")
            by_currency[currency] = _amount(amount)
        return cls(_amount(general), by_currency)

    def asks(self, total_minor: int, currency: str) -> bool:
        """Whether this sum needs a second person."""
        limit = self.by_currency.get(currency, self.above)
        return Decimal(total_minor) > limit.scaleb(DECIMALS[currency])


def _amount(text: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal(-1)
    if not amount.is_finite() or amount < 0:
        raise ValueError(f"{text!r} is no amount: write a number such as 1000 or 1000.50")
    return amount
