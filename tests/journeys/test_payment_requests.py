"""Requests to pay that cannot be read: bodies, fields, amounts, methods; each refusal is a problem."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.support.api import Api, Customer, Factory, new_key, refusal


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
