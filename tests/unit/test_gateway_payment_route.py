"""`POST /payment/confirm` as clients see it, over a gateway whose neighbours are in memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.confirm import PaymentInProgress, PaymentState
from payflow.contracts.gateway import Role
from payflow.kernel.errors import Unavailable, UnknownOutcome
from tests.fakes_gateway import GatewayWorld, Reply, a_payment_body

PATH = "/payment/confirm"


@pytest.fixture
def world(tmp_path: Path) -> GatewayWorld:
    return GatewayWorld(tmp_path / "keys")


async def pay(world: GatewayWorld, token: str | None, *, key: str | None = "key-1", **changes: Any) -> Reply:
    return await world.client.send("POST", PATH, body=a_payment_body(**changes), token=token, key=key)


async def test_a_completed_payment_is_told_with_its_amount_as_a_number_of_the_currencys_decimals(
    world: GatewayWorld,
) -> None:
    token = await world.token()

    reply = await pay(world, token)

    assert reply.status == 200
    assert reply.body == (
        b'{"status":"SUCCESS","transaction_id":"txn_001","reference":"PF-0001","amount":1000.00,'
        b'"confirmed_at":"2026-03-02T12:00:00Z","risk_level":"LOW"}'
    )
    assert reply.headers["content-type"] == "application/json"


@pytest.mark.parametrize("amount", ["1000", "1000.0", "1000.00", 1000])
async def test_spellings_of_one_amount_have_one_fingerprint_and_reach_confirm_as_sent(
    world: GatewayWorld, amount: object
) -> None:
    token = await world.token()

    await pay(world, token)
    await pay(world, token, amount=amount)

    first, second = world.confirm.commands
    assert first.fingerprint == second.fingerprint
    assert second.amount == str(amount)


@pytest.mark.parametrize(
    "change",
    [
        {"transaction_id": "txn_002"},
        {"amount": "1000.01"},
        {"from_account": "ACC009"},
        {"to_account": "ACC009"},
        {"currency": "USD"},
        {"remittance_information": "rent"},
        {"creditor": {"name": "Ada"}},
        {"creditor": {"name": "Ada", "country": "GB"}},
        {"creditor": {"name": "Ada", "agent": "NORDDEFFXXX"}},
    ],
)
async def test_another_content_has_another_fingerprint(world: GatewayWorld, change: dict[str, Any]) -> None:
    token = await world.token()

    await pay(world, token)
    await pay(world, token, **change)

    first, second = world.confirm.commands
    assert first.fingerprint != second.fingerprint


async def test_the_one_time_password_is_no_part_of_the_fingerprint_and_is_passed_on(world: GatewayWorld) -> None:
    token = await world.token()

    await pay(world, token)
    await pay(world, token, otp="123456")

    first, second = world.confirm.commands
    assert first.fingerprint == second.fingerprint
    assert (first.otp, second.otp) == (None, "123456")


async def test_a_high_risk_payment_is_told_to_need_a_one_time_password(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome, world.confirm.changes = PaymentState.AWAITING_OTP, {"risk_level": "HIGH"}

    reply = await pay(world, token)

    assert reply.status == 200
    assert reply.json["status"] == "OTP_REQUIRED"
    assert set(reply.json) == {"status", "message", "transaction_id", "risk_level", "expires_at"}
    assert reply.json["expires_at"] == "2026-03-02T12:15:00Z"


async def test_a_payment_under_review_is_pending_without_the_reviews_reason(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome, world.confirm.changes = PaymentState.UNDER_REVIEW, {"reason": "SDN list hit"}

    reply = await pay(world, token)

    assert reply.status == 202
    assert reply.json == {"status": "PENDING", "transaction_id": "txn_001", "reason": "The payment is under review."}


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("2030-01-31", "2030-01-31T00:00:00Z"),
        ("2030-01-31T09:00:00Z", "2030-01-31T09:00:00Z"),
        ("2030-01-31t09:00:00+01:00", "2030-01-31T08:00:00Z"),
        ("2030-01-31T09:00:00.250Z", "2030-01-31T09:00:00.250000Z"),
    ],
)
async def test_a_payment_for_later_is_pending_until_its_time(world: GatewayWorld, said: str, read: str) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.SCHEDULED

    reply = await pay(world, token, execute_at=said)

    assert reply.status == 202
    assert reply.json == {
        "status": "PENDING",
        "transaction_id": "txn_001",
        "reason": "The payment will be made at execute_at.",
        "execute_at": read,
    }


@pytest.mark.parametrize(
    "said", ["tomorrow", "2030-02-30", "2030-01-31T09:00:00", "2030-01-31 09:00:00Z", "20300131", "", 1900000000]
)
async def test_a_time_that_cannot_be_read_is_400_and_reaches_nobody(world: GatewayWorld, said: object) -> None:
    token = await world.token()

    reply = await pay(world, token, execute_at=said)

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")
    assert world.confirm.commands == []


async def test_two_spellings_of_one_instant_are_one_request_and_another_instant_is_another(world: GatewayWorld) -> None:
    token = await world.token()

    await pay(world, token, execute_at="2030-01-31T09:00:00Z")
    await pay(world, token, execute_at="2030-01-31T10:00:00+01:00")
    await pay(world, token, execute_at="2030-01-31T10:00:00Z")

    first, same, other = (command.fingerprint for command in world.confirm.commands)
    assert first == same != other


async def test_an_inter_bank_payment_waits_for_the_other_bank_and_tells_the_end(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome, world.confirm.later = PaymentState.SUBMITTED, PaymentState.COMPLETED

    reply = await pay(world, token)

    assert (reply.status, reply.json["status"]) == (200, "SUCCESS")
    assert [query.wait_s for query in world.confirm.waits] == [2.0]


async def test_an_inter_bank_payment_without_the_other_banks_word_is_pending(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.SUBMITTED

    reply = await pay(world, token)

    assert (reply.status, reply.json["status"]) == (202, "PENDING")


async def test_a_refused_payment_is_told_again_byte_for_byte(world: GatewayWorld) -> None:
    token = await world.token()
    world.confirm.outcome = PaymentState.REJECTED

    first = await pay(world, token)
    second = await pay(world, token)

    assert first.status == 422
    assert first.headers["content-type"] == "application/problem+json"
    assert first.json["error"] == "INSUFFICIENT_FUNDS"
    assert first.json["trace_id"] == world.confirm.commands[0].traceparent[3:35]
    assert world.confirm.commands[0].traceparent != world.confirm.commands[1].traceparent
    assert first.body == second.body


@pytest.mark.parametrize(
    ("state", "code"),
    [(PaymentState.CANCELLED, "PAYMENT_CANCELLED"), (PaymentState.EXPIRED, "PAYMENT_EXPIRED")],
)
async def test_a_payment_that_ended_otherwise_is_refused(world: GatewayWorld, state: PaymentState, code: str) -> None:
    token = await world.token()
    world.confirm.outcome = state

    reply = await pay(world, token)

    assert (reply.status, reply.json["error"]) == (422, code)


@pytest.mark.parametrize(
    ("failure", "status"),
    [(PaymentInProgress(), 409), (UnknownOutcome(), 503), (Unavailable(), 503)],
)
async def test_what_is_not_decided_yet_says_when_to_ask_again(world: GatewayWorld, failure: Any, status: int) -> None:
    token = await world.token()
    world.confirm.failure = failure

    reply = await pay(world, token)

    assert reply.status == status
    assert int(reply.headers["retry-after"]) >= 1


async def test_no_token_is_asked_for_before_anything_else_is_looked_at(world: GatewayWorld) -> None:
    reply = await world.client.send("POST", PATH, body=b"{", key=None)

    assert (reply.status, reply.json["error"]) == (401, "ACCESS_TOKEN_REQUIRED")
    assert reply.headers["www-authenticate"] == "Bearer"


async def test_the_key_is_looked_at_before_the_body(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await world.client.send("POST", PATH, body=b"{", token=token)

    assert (reply.status, reply.json["error"]) == (400, "MISSING_IDEMPOTENCY_KEY")


@pytest.mark.parametrize("key", ["", "a" * 256, "ключ", "a\tb"])
async def test_a_key_that_is_not_1_to_255_printable_ascii_characters_is_refused(world: GatewayWorld, key: str) -> None:
    token = await world.token()

    reply = await pay(world, token, key=key)

    assert reply.status == 400
    assert reply.json["error"] == ("INVALID_IDEMPOTENCY_KEY" if key else "MISSING_IDEMPOTENCY_KEY")


async def test_two_keys_are_refused(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await world.client.send(
        "POST", PATH, body=a_payment_body(), token=token, key="one", headers=[("Idempotency-Key", "two")]
    )

    assert reply.json["error"] == "INVALID_IDEMPOTENCY_KEY"


async def test_all_missing_fields_are_named_in_the_promised_order(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await world.client.send("POST", PATH, body={"to_account": "", "amount": None}, token=token, key="k")

    assert (reply.status, reply.json["error"]) == (400, "MISSING_REQUIRED_FIELDS")
    assert reply.json["missing_fields"] == ["transaction_id", "customer_id", "amount", "from_account", "to_account"]


@pytest.mark.parametrize(
    "body",
    [
        a_payment_body(surprise=1),
        a_payment_body(transaction_id="t" * 65),
        a_payment_body(transaction_id="txn 1"),
        a_payment_body(transaction_id="txn_1\n"),
        a_payment_body(from_account="A" * 35),
        a_payment_body(from_account="ACC 1"),
        a_payment_body(to_account="АСС001"),
        a_payment_body(currency="usd"),
        a_payment_body(otp="1" * 17),
        a_payment_body(otp=123456),
        a_payment_body(creditor={"country": "DE"}),
        a_payment_body(creditor={"name": "Ada", "agent": "SHORT"}),
        a_payment_body(creditor={"name": "Ada", "bank": "x"}),
        a_payment_body(remittance_information="r" * 141),
        a_payment_body(remittance_information="a\u0007b"),
        a_payment_body(amount=True),
        a_payment_body(amount={"value": 1}),
        [a_payment_body()],
    ],
    ids=lambda body: json.dumps(body)[-40:],
)
async def test_a_body_that_breaks_the_schema_is_not_readable(world: GatewayWorld, body: object) -> None:
    token = await world.token()

    reply = await world.client.send("POST", PATH, body=body, token=token, key="k")

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")
    assert world.confirm.commands == []


async def test_a_doubled_field_is_refused(world: GatewayWorld) -> None:
    token = await world.token()
    body = b'{"amount":"9999.00",' + json.dumps(a_payment_body()).encode()[1:]

    reply = await world.client.send("POST", PATH, body=body, token=token, key="k")

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")


@pytest.mark.parametrize("amount", ["-5", "1e3", "abc", "0", "1000.001"])
async def test_an_amount_that_is_none_is_left_to_confirm_which_keeps_the_refusal_with_the_key(
    world: GatewayWorld, amount: str
) -> None:
    token = await world.token()
    world.confirm.failure = Unavailable()

    await pay(world, token, amount=amount)

    assert [command.amount for command in world.confirm.commands] == [amount]


async def test_a_payment_in_another_customers_name_is_forbidden(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await pay(world, token, customer_id="cust_002")

    assert (reply.status, reply.json["error"]) == (403, "FORBIDDEN")
    assert world.confirm.commands == []


@pytest.mark.parametrize("role", [Role.OPERATOR, Role.COMPLIANCE, Role.AUDITOR, Role.ADMIN])
async def test_only_customers_pay(world: GatewayWorld, role: Role) -> None:
    token = await world.token("officer", role=role)

    reply = await pay(world, token)

    assert (reply.status, reply.json["error"]) == (403, "FORBIDDEN")


async def test_another_method_is_told_which_one_there_is(world: GatewayWorld) -> None:
    reply = await world.client.send("GET", PATH)

    assert (reply.status, reply.headers["allow"]) == (405, "POST")


@pytest.mark.parametrize(
    "headers",
    [
        [("Content-Type", "text/plain")],
        [("Content-Type", "application/json; charset=latin-1")],
        [("Content-Type", "application/json"), ("Content-Encoding", "gzip")],
        [("Content-Type", "application/json"), ("Content-Type", "application/json")],
    ],
)
async def test_another_media_type_is_refused(world: GatewayWorld, headers: list[tuple[str, str]]) -> None:
    token = await world.token()

    reply = await world.client.send("POST", PATH, body=a_payment_body(), token=token, key="k", headers=headers)

    assert (reply.status, reply.json["error"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_charset_of_utf_8_is_read(world: GatewayWorld) -> None:
    token = await world.token()
    headers = [("Content-Type", "application/json; charset=UTF-8")]

    reply = await world.client.send("POST", PATH, body=a_payment_body(), token=token, key="k", headers=headers)

    assert reply.status == 200


async def test_a_body_beyond_64_kb_is_refused(world: GatewayWorld) -> None:
    token = await world.token()

    reply = await world.client.send("POST", PATH, body=b" " * 65_537, token=token, key="k")

    assert (reply.status, reply.json["error"]) == (413, "PAYLOAD_TOO_LARGE")


async def test_every_answer_tells_the_limits(world: GatewayWorld) -> None:
    token = await world.token()

    answers = [await pay(world, token), await pay(world, None), await pay(world, token, key=None)]

    for reply in answers:
        assert int(reply.headers["ratelimit-limit"]) == 10_000
        assert int(reply.headers["ratelimit-remaining"]) < 10_000
        assert reply.headers["ratelimit"].startswith('"')
