"""Payments between accounts here: what is paid, and what is refused."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.support.api import Factory, new_key, refusal


async def test_a_small_payment_succeeds_at_once_and_moves_the_money(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body = debtor.body(creditor.account, "100.00")

    answer = await debtor.client.confirm(body, key=new_key())

    assert answer.status == 200
    assert b'"status":"SUCCESS"' in answer.body
    assert b'"amount":100.00,' in answer.body
    assert answer.json.keys() >= {
        "status",
        "transaction_id",
        "reference",
        "amount",
        "confirmed_at",
        "risk_level",
    }
    assert answer.json["transaction_id"] == body["transaction_id"]
    assert answer.json["risk_level"] == "LOW"
    assert await debtor.balances() == ("900.00", "0.00", "900.00")
    assert await creditor.balances() == ("1100.00", "0.00", "1100.00")


async def test_of_many_payments_of_the_whole_balance_at_once_one_succeeds(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    answers = await asyncio.gather(*(debtor.pay(creditor.account, "1000.00") for _ in range(5)))

    told = sorted(answer.status for answer in answers)
    assert told == [200, 422, 422, 422, 422]
    assert await debtor.balances() == ("0.00", "0.00", "0.00")
    assert await creditor.balances() == ("2000.00", "0.00", "2000.00")


async def test_an_amount_too_large_for_any_account_is_refused(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    for amount in ("99999999999999999999", "9" * 30 + ".00", "92233720368547758.08"):
        answer = await debtor.pay(creditor.account, amount)
        assert answer.status in (400, 422), answer
        assert answer.error in ("INVALID_AMOUNT", "MALFORMED_REQUEST", "INSUFFICIENT_FUNDS")


async def test_yen_have_no_decimals(make: Factory) -> None:
    debtor, creditor = await make.customer(JPY="100000"), await make.customer(JPY="0")

    whole = await debtor.pay(creditor.account, "1500")
    broken = await debtor.pay(creditor.account, "1500.50")

    assert whole.status == 200
    assert b'"amount":1500,' in whole.body
    assert refusal(broken) == (422, "INVALID_AMOUNT")
    assert await debtor.balances() == ("98500", "0", "98500")


async def test_accounts_of_different_currencies_do_not_pay_each_other(make: Factory) -> None:
    debtor, creditor = await make.customer(USD="100.00"), await make.customer(EUR="100.00")

    between = await debtor.pay(creditor.account, "1.00")
    named = await debtor.pay((await make.customer()).account, "1.00", currency="EUR")

    assert refusal(between) == refusal(named) == (422, "CURRENCY_MISMATCH")


async def test_more_than_the_available_balance_is_refused_and_moves_nothing(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    answer = await debtor.pay(creditor.account, "1000.01")

    assert refusal(answer) == (422, "INSUFFICIENT_FUNDS")
    assert await debtor.balances() == ("1000.00", "0.00", "1000.00")
    assert await creditor.balances() == ("1000.00", "0.00", "1000.00")


async def test_a_payment_to_the_same_account_is_refused(make: Factory) -> None:
    debtor = await make.customer()

    answer = await debtor.pay(debtor.account)

    assert refusal(answer) == (422, "SAME_ACCOUNT")


@pytest.mark.parametrize("to_account", ["NOBODY", "DE00990100100000001001", "GB29NWBK60161331926819", "1000200300"])
async def test_an_account_that_nobody_has_is_refused_once_and_for_all(make: Factory, to_account: str) -> None:
    debtor = await make.customer(EUR="100.00")
    key, body = new_key(), debtor.body(to_account, "1.00")

    first = await debtor.client.confirm(body, key=key)
    again = await debtor.client.confirm(body, key=key)

    assert refusal(first) == (422, "CREDITOR_UNREACHABLE")
    assert again.body == first.body


async def test_nobody_pays_as_another_customer(make: Factory) -> None:
    thief, victim = await make.customer(), await make.customer()

    as_other = await thief.pay(thief.account, customer_id=victim.customer_id)
    from_other = await thief.pay(thief.account, from_account=victim.account)
    from_nowhere = await thief.pay(victim.account, from_account="NOBODY")

    assert refusal(as_other) == (403, "FORBIDDEN")
    assert refusal(from_other) == (403, "ACCOUNT_NOT_OWNED")
    assert refusal(from_nowhere) == refusal(from_other)
    assert await victim.balances() == ("1000.00", "0.00", "1000.00")


async def test_an_operator_cannot_pay(operators: Any) -> None:
    body = {"transaction_id": "t", "customer_id": "cust_001", "amount": "1", "from_account": "A", "to_account": "B"}

    answers = [await client.confirm(body, key=new_key()) for client in operators.values()]

    assert {refusal(answer) for answer in answers} == {(403, "FORBIDDEN")}
