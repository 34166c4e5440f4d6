"""What customers order: kinds of payments in shares that the run's seed draws, each of them at least once."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from payflow.kernel.money import format_minor
from payflow_dev.bench.population import CURRENCY, INTER_BANK_CREDITOR_NAME, Customer
from payflow_dev.chaos.history import now_ns

# Small enough for no points; large enough, with those for many payments, for a one-time password.
SMALL_MAX_MINOR: Final = 20_000
LARGE_MINOR: Final = 600_000
TOO_LARGE_MINOR: Final = 10**13
# Accounts at the simulated other banks, and how these are told to treat them: paid, refused, and paid without a word.
PAID_ABROAD: Final = "DE08990100100000001001"
REFUSED_ABROAD: Final = "DE78990100100000001002"
SILENT_ABROAD: Final = "FR7699002000010000000200107"
BANKS: Final = {
    "accounts": {
        REFUSED_ABROAD: {"mode": "reject", "reason_code": "AC04"},
        SILENT_ABROAD: {"mode": "silent_after"},
    }
}
ABROAD: Final = (PAID_ABROAD, REFUSED_ABROAD, SILENT_ABROAD)
# On the sanctions lists: a payment to somebody of this name waits for an officer.
LISTED_NAME: Final = "Rafael Caro Quintero"
SCHEDULED_AFTER_S: Final = 3.0
FILE_LINES: Final = (20, 100)
LISTED_ABROAD_SHARE: Final = 0.01
FILE_SHARE: Final = 0.005
RETURN_SHARE: Final = 0.05
# What the first eight customers order first, by customer and number: every kind has been asked for when the first fault
# strikes. Customers 4 to 7 cancel what is for later.
_BEGINNINGS: Final = {
    (0, 1): "later",
    (1, 1): "file",
    (2, 1): "cleared",
    (2, 2): "cleared abroad",
    (3, 1): "blocked",
    (4, 1): "later",
    (5, 1): "large",
    (5, 2): "abroad",
    (6, 1): "returned",
    (7, 1): "declined",
}


@dataclass(slots=True)
class Order:
    """One payment that a customer wants; `key` is its transaction id, and its idempotency key unless it has another.

    `is_listed`: it names a creditor of the sanctions lists; `is_to_be_cleared`: what an officer will say of that, and
    `has_two_words`: another one says the opposite at the same moment. `is_to_return`: once it is paid, parts of it are
    asked back; `is_to_decline`: where that takes a second person, that one says no.
    """

    payer: int
    key: str
    debtor: str
    creditor: str
    amount_minor: int
    execute_at: str | None = None
    due_ns: int | None = None
    code: str | None = None
    final: tuple[int, bytes] | None = None
    is_cancelled: bool = False
    idempotency_key: str | None = None
    is_listed: bool = False
    is_to_be_cleared: bool = True
    has_two_words: bool = False
    is_to_return: bool = False
    is_to_decline: bool = False

    @property
    def is_paid(self) -> bool:
        """Whether its final answer is that the money has moved."""
        return self.final is not None and b'"SUCCESS"' in self.final[1]

    def schedule(self, after_s: float) -> None:
        """Order it for so many seconds from now."""
        self.execute_at = (datetime.now(UTC) + timedelta(seconds=after_s)).isoformat()
        self.due_ns = now_ns() + int(after_s * 1e9)

    def body(self, customer_id: str) -> dict[str, Any]:
        """The request's body; a line of a file is the same."""
        body: dict[str, Any] = {
            "transaction_id": self.key,
            "customer_id": customer_id,
            "amount": format_minor(self.amount_minor, CURRENCY),
            "from_account": self.debtor,
            "to_account": self.creditor,
        }
        if self.is_listed:
            body["creditor"] = {"name": LISTED_NAME}
        elif self.creditor in ABROAD:
            body["creditor"] = {"name": INTER_BANK_CREDITOR_NAME}
        if self.execute_at is not None:
            body["execute_at"] = self.execute_at
        if self.code is not None:
            body["otp"] = self.code
        return body


@dataclass(slots=True)
class File:
    """A file of payments that a customer sends under one key. `bulk_id` is what it was told to be known as."""

    payer: int
    key: str
    orders: list[Order] = field(default_factory=list)
    bulk_id: str | None = None
    has_ended: bool = False


def cancels_codes(payer: int) -> bool:
    """A quarter of the customers cancel what asks for a code; some of them at each address, as of all kinds."""
    return payer // 4 % 4 == 3


def who_has_a_last_cent(customers: int, *, emptied: Collection[int], number: int) -> int:
    """A customer whose second account is still full, the `number`-th of them; not one who cancels what asks for a code.

    Raises RuntimeError where every such account is empty.
    """
    full = [payer for payer in range(customers) if payer not in emptied and not cancels_codes(payer)]
    if not full:
        raise RuntimeError("every second account has been emptied: the run needs more customers")
    return full[number % len(full)]


def cancels_later_ones(payer: int) -> bool:
    """Another quarter cancels what was ordered for later, or waits for an officer."""
    return payer // 4 % 4 == 1


class Mix:
    """Draws what each customer orders next. With `is_simple` there are payments only: no file, return or review."""

    def __init__(self, *, customers: Sequence[Customer], chance: random.Random, is_simple: bool) -> None:
        self._customers, self._random, self._is_simple = customers, chance, is_simple

    def next(self, payer: int, number: int) -> Order | File:
        """The `number`th wish of a customer, counted from 1: a payment, or a file of them."""
        name = f"c{payer:03d}-{number:06d}"
        beginning = None if self._is_simple else _BEGINNINGS.get((payer, number))
        if beginning == "file" or (beginning is None and not self._is_simple and self._random.random() < FILE_SHARE):
            return self.file(payer, name)
        return self._order(payer, name, beginning)

    def file(self, payer: int, name: str) -> File:
        """A file of a customer's, with payments of all kinds but those for later."""
        lines = range(1, self._random.randint(*FILE_LINES) + 1)
        return File(payer, f"f-{name}", [self._order(payer, f"{name}-{line:03d}", in_file=True) for line in lines])

    def _order(self, payer: int, key: str, beginning: str | None = None, *, in_file: bool = False) -> Order:
        mine = self._customers[payer].accounts[0]
        # A neighbour at a distance of one: every pair pays each other, in both directions, all the time.
        neighbour = payer ^ 1 if self._random.random() < 0.5 else self._random.randrange(len(self._customers))
        other = self._customers[neighbour % len(self._customers)]
        creditor = other.accounts[0] if other.accounts[0] != mine else self._customers[payer].accounts[1]
        order = Order(payer, key, mine, creditor, self._random.randint(100, SMALL_MAX_MINOR))
        order.is_to_be_cleared, order.has_two_words = self._random.random() < 0.6, self._random.random() < 0.25
        order.is_to_decline = self._random.random() < 0.3
        if beginning is not None:
            self._begin(order, beginning)
            return order
        chance = self._random.random()
        if chance < 0.15:
            order.creditor = self._random.choice((PAID_ABROAD, PAID_ABROAD, REFUSED_ABROAD, SILENT_ABROAD))
            # Abroad and listed: what was held for the review is kept for the other bank's word.
            order.is_listed = chance < LISTED_ABROAD_SHARE and not self._is_simple
        elif chance < 0.20:
            order.amount_minor = LARGE_MINOR
        elif chance < 0.23:
            order.amount_minor = TOO_LARGE_MINOR
        elif chance < 0.27 and not in_file:
            # Not in a file: while it is sent again and again, the instant would pass, and the line be refused.
            order.schedule(SCHEDULED_AFTER_S)
        elif 0.27 <= chance < 0.29:
            order.is_listed = not self._is_simple
        order.is_to_return = self._random.random() < RETURN_SHARE and not self._is_simple
        return order

    def _begin(self, order: Order, beginning: str) -> None:
        """Make it what it is to be."""
        match beginning:
            case "later":
                order.schedule(SCHEDULED_AFTER_S)
            case "abroad":
                order.creditor = PAID_ABROAD
            case "large":
                order.amount_minor = LARGE_MINOR
            case "cleared" | "blocked" | "cleared abroad":
                order.is_listed, order.is_to_be_cleared = True, beginning != "blocked"
                order.has_two_words = False
                if beginning == "cleared abroad":
                    order.creditor = PAID_ABROAD
            case _:
                order.amount_minor = SMALL_MAX_MINOR
                order.is_to_return, order.is_to_decline = True, beginning == "declined"
