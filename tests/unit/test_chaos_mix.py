"""What the customers of a fault run order: every kind from the first moment on, and the same for the same seed."""

from __future__ import annotations

import random

import pytest

from payflow_dev.bench.population import make_customers
from payflow_dev.chaos.mix import (
    ABROAD,
    FILE_LINES,
    LARGE_MINOR,
    LISTED_NAME,
    File,
    Mix,
    Order,
    cancels_codes,
    cancels_later_ones,
    who_has_a_last_cent,
)

CUSTOMERS = make_customers(count=8, run_id="r", seed=1)


def wishes(seed: int, *, number: int, is_simple: bool = False) -> list[Order | File]:
    mix = Mix(customers=CUSTOMERS, chance=random.Random(seed), is_simple=is_simple)
    return [mix.next(payer, of) for of in range(1, number + 1) for payer in range(len(CUSTOMERS))]


def test_the_fewest_customers_begin_with_every_kind() -> None:
    first = wishes(1, number=2)
    orders = [wish for wish in first if isinstance(wish, Order)]

    assert any(isinstance(wish, File) for wish in first)
    assert {cancels_later_ones(order.payer) for order in orders if order.execute_at is not None} == {True, False}
    assert {order.is_to_be_cleared for order in orders if order.is_listed} == {True, False}
    assert {order.is_to_decline for order in orders if order.is_to_return} == {True, False}
    assert any(order.amount_minor == LARGE_MINOR for order in orders)
    assert any(order.creditor in ABROAD and not order.is_listed for order in orders)
    # Where the money is held for the review, and kept for the other bank's word.
    cleared_abroad = [order for order in orders if order.creditor in ABROAD and order.is_listed]
    assert [order.is_to_be_cleared and not cancels_later_ones(order.payer) for order in cleared_abroad] == [True]
    assert cleared_abroad[0].body("c")["creditor"] == {"name": LISTED_NAME}


def test_now_and_then_a_payment_abroad_is_to_a_listed_name() -> None:
    orders = [wish for wish in wishes(3, number=400) if isinstance(wish, Order)]
    abroad = [order for order in orders if order.creditor in ABROAD]

    assert 0 < sum(order.is_listed for order in abroad) < len(abroad) / 4
    assert any(order.is_listed and order.is_to_be_cleared for order in abroad)


def test_no_account_is_emptied_twice_and_nobody_empties_one_who_cancels_what_asks_for_a_code() -> None:
    emptied = set[int]()
    for number in range(24):
        emptied.add(who_has_a_last_cent(32, emptied=emptied, number=number * 7))

    assert len(emptied) == 24
    assert not any(cancels_codes(payer) for payer in emptied)
    with pytest.raises(RuntimeError, match="more customers"):
        who_has_a_last_cent(32, emptied=emptied, number=1)


def test_the_same_seed_orders_the_same() -> None:
    def seen(seed: int) -> list[tuple[str, int]]:
        return [
            (order.creditor, order.amount_minor)
            for wish in wishes(seed, number=40)
            for order in (wish.orders if isinstance(wish, File) else [wish])
        ]

    assert seen(7) == seen(7) != seen(8)


def test_a_file_has_its_lines_under_names_of_their_own_and_none_for_later() -> None:
    files = [wish for wish in wishes(3, number=400) if isinstance(wish, File)]
    names = [order.key for file in files for order in file.orders]

    assert len(files) > 5
    assert len(set(names)) == len(names)
    assert all(FILE_LINES[0] <= len(file.orders) <= FILE_LINES[1] for file in files)
    assert all(order.execute_at is None for file in files for order in file.orders)


def test_without_officers_there_are_payments_only() -> None:
    orders = wishes(3, number=400, is_simple=True)

    assert not any(isinstance(wish, File) or wish.is_listed or wish.is_to_return for wish in orders)
