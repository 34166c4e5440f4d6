"""Payments between accounts here: what is paid, what is refused, and what a repeat is told."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from tests.support.api import Answer, Api, Customer, Factory, new_key
from tests.support.system import System


def refusal(answer: Answer) -> tuple[int, str | None]:
    return answer.status, answer.error


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


async def test_of_many_payments_of_the_whole_balance_at_once_one_succeeds(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    answers = await asyncio.gather(*(debtor.pay(creditor.account, "1000.00") for _ in range(5)))

    told = sorted(answer.status for answer in answers)
    assert told == [200, 422, 422, 422, 422]
    assert await debtor.balances() == ("0.00", "0.00", "0.00")
    assert await creditor.balances() == ("2000.00", "0.00", "2000.00")


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


async def test_all_missing_fields_are_named_in_order(bystander: Customer) -> None:
    nothing = await bystander.client.confirm({}, key=new_key())
    some = await bystander.client.confirm(
        {"transaction_id": "t", "customer_id": None, "amount": "", "from_account": "ACC001"}, key=new_key()
    )

    assert refusal(nothing) == refusal(some) == (400, "MISSING_REQUIRED_FIELDS")
    assert nothing.json["missing_fields"] == [
        "transaction_id",
        "customer_id",
        "amount",
        "from_account",
        "to_account",
    ]
    assert some.json["missing_fields"] == ["customer_id", "amount", "to_account"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"transaction_id": }',
        b"[]",
        b'"text"',
        b"null",
        b"\xff\xfe{}",
        b'{"a":1}{"b":2}',
        b'{"transaction_id":"t","transaction_id":"t"}',
        b'{"transaction_id":"t","transaction_\\u0069d":"u"}',
        b"{" * 5000,
        b'{"transaction_id":NaN}',
        b"// comment\n{}",
        b"transaction_id=t&amount=1",
    ],
)
async def test_a_body_that_is_not_one_json_object_is_malformed(bystander: Customer, body: bytes) -> None:
    answer = await bystander.client.confirm(body, key=new_key())

    assert refusal(answer) == (400, "MALFORMED_REQUEST")


@pytest.mark.parametrize(
    "field",
    [
        {"unknown": 1},
        {"otp": 123456},
        {"transaction_id": 7},
        {"transaction_id": "has blanks"},
        {"transaction_id": "x" * 65},
        {"transaction_id": "line\n"},
        {"from_account": "x" * 35},
        {"to_account": "ACC\u0000"},
        {"amount": True},
        {"amount": ["1"]},
        {"currency": "usd"},
        {"creditor": {"name": "A", "nick": "B"}},
        {"creditor": "A"},
        {"creditor": {}},
        {"creditor": {"name": "A", "country": "Germany"}},
        {"creditor": {"name": "A", "agent": "short"}},
        {"remittance_information": "x" * 141},
    ],
    ids=str,
)
async def test_a_field_that_is_unknown_or_of_the_wrong_kind_is_malformed(
    bystander: Customer, field: dict[str, Any]
) -> None:
    answer = await bystander.client.confirm(bystander.body("ACC001") | field, key=new_key())

    assert answer.status == 400
    assert answer.error in ("MALFORMED_REQUEST", "MISSING_REQUIRED_FIELDS")


async def test_a_malformed_request_leaves_its_key_free(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    key = new_key()
    await debtor.client.confirm(b"{", key=key)

    answer = await debtor.pay(creditor.account, key=key)

    assert answer.status == 200


@pytest.mark.parametrize(
    "amount",
    ["0", "0.00", "-1.00", "-0", "1.001", "1e3", "1E3", "+1", " 1", "1 ", "1,000.00", "1.", ".5", "0x10", "١٠", "NaN"],
)
async def test_an_amount_that_is_no_plain_positive_decimal_is_refused(make: Factory, amount: str) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    answer = await debtor.pay(creditor.account, amount)

    assert answer.status in (400, 422)
    assert answer.error in ("INVALID_AMOUNT", "MALFORMED_REQUEST")
    assert await debtor.balances() == ("1000.00", "0.00", "1000.00")


@pytest.mark.parametrize(
    ("written", "told"),
    [(b'"0.01"', b"0.01"), (b"0.01", b"0.01"), (b"123.4", b"123.40"), (b"7", b"7.00"), (b'"7"', b"7.00")],
)
async def test_an_amount_is_read_exactly_and_told_with_the_currency_s_decimals(
    make: Factory, written: bytes, told: bytes
) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body = b'{"transaction_id":"%s","customer_id":"%s","amount":%s,"from_account":"%s","to_account":"%s"}' % (
        new_key().encode(),
        debtor.customer_id.encode(),
        written,
        debtor.account.encode(),
        creditor.account.encode(),
    )

    answer = await debtor.client.confirm(body, key=new_key())

    assert answer.status == 200
    assert b'"amount":%s,' % told in answer.body


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


async def test_without_a_token_nothing_else_is_looked_at(api: Api) -> None:
    answer = await api.send("POST", "/payment/confirm", body=b"{")

    assert refusal(answer) == (401, "ACCESS_TOKEN_REQUIRED")


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/xml", "application/x-www-form-urlencoded", "application/json; charset=latin-1", ""],
)
async def test_only_json_is_taken(bystander: Customer, content_type: str) -> None:
    headers = {"Idempotency-Key": new_key(), "Content-Type": content_type}

    answer = await bystander.client.api.send(
        "POST", "/payment/confirm", token=bystander.client.token, body=b"{}", headers=headers
    )

    assert refusal(answer) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_body_above_64_kb_is_refused(bystander: Customer) -> None:
    body = b'{"transaction_id":"' + b"x" * 65_536 + b'"}'

    answer = await bystander.client.confirm(body, key=new_key())

    assert refusal(answer) == (413, "PAYLOAD_TOO_LARGE")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_another_method_is_told_which_one_is_right(bystander: Customer, method: str) -> None:
    answer = await bystander.client.api.send(method, "/payment/confirm", token=bystander.client.token)

    assert refusal(answer) == (405, "METHOD_NOT_ALLOWED")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/payment/confirm/", "/payment", "/home", "/payments/x/y", "/rpc/confirm/confirm"])
async def test_an_unknown_path_is_a_404_problem(bystander: Customer, path: str) -> None:
    answer = await bystander.client.get(path)

    assert refusal(answer) == (404, "NOT_FOUND")


async def test_every_refusal_is_a_problem_with_a_trace_id(bystander: Customer, api: Api) -> None:
    answers = [
        await bystander.client.confirm({}, key=new_key()),
        await bystander.pay("NOBODY"),
        await api.send("GET", "/accounts"),
        await api.send("GET", "/nowhere"),
        await api.send("PUT", "/auth/login"),
        await api.login("demo", "wrong"),
    ]

    for answer in answers:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json.keys() >= {"type", "title", "status", "detail", "instance", "error", "trace_id"}
        assert answer.json["status"] == answer.status
        assert re.fullmatch(r"[0-9a-f]{32}", answer.json["trace_id"])
