"""Repeats of a payment: what the same key is told, and what becomes of many requests at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.api import Customer, Factory, new_key, refusal
from tests.support.system import System


async def test_a_repeat_with_the_same_key_is_told_the_same_bytes_by_either_gateway(
    make: Factory, system: System
) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body, key = debtor.body(creditor.account), new_key()
    first = await debtor.client.confirm(body, key=key)

    repeats = [await debtor.client.at(url).confirm(body, key=key) for url in system.gateway_urls]

    assert [repeat.body for repeat in repeats] == [first.body] * 2
    assert await debtor.balances() == ("900.00", "0.00", "900.00")


async def test_a_refused_payment_s_repeat_is_told_the_same_bytes(make: Factory, system: System) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body, key = debtor.body(creditor.account, "1000.01"), new_key()
    first = await debtor.client.confirm(body, key=key)

    repeats = [await debtor.client.at(url).confirm(body, key=key) for url in system.gateway_urls]

    assert refusal(first) == (422, "INSUFFICIENT_FUNDS")
    assert [(repeat.status, repeat.body) for repeat in repeats] == [(422, first.body)] * 2


async def test_a_refusal_stays_when_the_money_has_come_in_since(make: Factory) -> None:
    debtor, creditor = await make.customer(USD="10.00"), await make.customer()
    body, key = debtor.body(creditor.account, "50.00"), new_key()
    first = await debtor.client.confirm(body, key=key)
    await creditor.pay(debtor.account, "100.00")

    again = await debtor.client.confirm(body, key=key)
    fresh = await debtor.pay(creditor.account, "50.00")

    assert again.body == first.body
    assert fresh.status == 200


@pytest.mark.parametrize("amount", ["1000.00", "1000.0", "1000", 1000, 1000.0])
async def test_a_repeat_may_write_the_same_amount_in_another_way(make: Factory, amount: Any) -> None:
    debtor, creditor = await make.customer(USD="5000.00"), await make.customer()
    body, key = debtor.body(creditor.account, "1000.00"), new_key()
    first = await debtor.client.confirm(body, key=key)

    again = await debtor.client.confirm(body | {"amount": amount}, key=key)

    assert again.body == first.body


@pytest.mark.parametrize(
    "change",
    [
        {"amount": "100.01"},
        {"to_account": "ACC001"},
        {"transaction_id": "another"},
        {"currency": "USD"},
        {"remittance_information": "rent"},
        {"creditor": {"name": "Somebody"}},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_the_same_key_with_other_content_is_refused(make: Factory, change: dict[str, Any]) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body, key = debtor.body(creditor.account), new_key()
    await debtor.client.confirm(body, key=key)

    answer = await debtor.client.confirm(body | change, key=key)

    assert refusal(answer) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert await debtor.balances() == ("900.00", "0.00", "900.00")


async def test_two_customers_may_use_the_same_key_and_transaction_id(make: Factory) -> None:
    one, two = await make.customer(), await make.customer()
    key = new_key()

    first = await one.pay(two.account, "1.00", key=key, transaction_id="txn-same")
    second = await two.pay(one.account, "2.00", key=key, transaction_id="txn-same")

    assert (first.status, second.status) == (200, 200)
    assert await one.balances() == ("1001.00", "0.00", "1001.00")


async def test_a_known_transaction_id_under_another_key_is_a_conflict(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body = debtor.body(creditor.account)
    await debtor.client.confirm(body, key=new_key())

    answer = await debtor.client.confirm(body, key=new_key())

    assert refusal(answer) == (409, "TRANSACTION_EXISTS")
    assert await debtor.balances() == ("900.00", "0.00", "900.00")


async def test_of_many_requests_at_once_under_one_key_one_moves_money(make: Factory, system: System) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body, key = debtor.body(creditor.account), new_key()

    answers = await asyncio.gather(*(debtor.client.at(url).confirm(body, key=key) for url in system.gateway_urls * 10))

    paid = {answer.body for answer in answers if answer.status == 200}
    others = [answer for answer in answers if answer.status != 200]
    assert len(paid) == 1
    assert {refusal(answer) for answer in others} <= {(409, "PAYMENT_IN_PROGRESS")}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in others)
    assert await debtor.balances() == ("900.00", "0.00", "900.00")


@pytest.mark.parametrize(
    ("key", "code"),
    [
        (None, "MISSING_IDEMPOTENCY_KEY"),
        ("", "MISSING_IDEMPOTENCY_KEY"),
        ("k" * 256, "INVALID_IDEMPOTENCY_KEY"),
        ("schlüssel", "INVALID_IDEMPOTENCY_KEY"),
        ("a\tb", "INVALID_IDEMPOTENCY_KEY"),
    ],
    ids=["absent", "empty", "too long", "not ASCII", "a control character"],
)
async def test_a_payment_needs_a_key_of_printable_characters(bystander: Customer, key: str | None, code: str) -> None:
    answer = await bystander.client.confirm(bystander.body("ACC001"), key=key)

    assert refusal(answer) == (400, code)


async def test_a_key_may_have_255_characters(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    answer = await debtor.pay(creditor.account, key=new_key().ljust(255, "~"))

    assert answer.status == 200
