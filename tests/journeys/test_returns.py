"""Completed payments are given back by the bank's own people, and cancelled before that by their customers."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.api import Answer, Client, Customer, Factory, eventually, new_key
from tests.support.other_bank import NORDBANK, OtherBank
from tests.support.system import System

Operators = dict[str, Client]
LISTED = "Rafael Caro Quintero"


async def paid(make: Factory, amount: str = "400.00", **payee: Any) -> tuple[Customer, Customer, dict[str, Any]]:
    """A completed payment: payer, payee, and the payment as its customer sees it."""
    payer, receiver = await make.customer(USD="9000.00"), await make.customer(**payee)
    body, key = payer.body(receiver.account, amount), new_key()
    answer = await payer.client.confirm(body, key=key)
    assert (answer.status, answer.json["status"]) == (200, "SUCCESS"), answer
    return payer, receiver, await payer.payment(body["transaction_id"])


async def ask(
    client: Client, payment: dict[str, Any], amount: str | None = None, *, key: str | None = None, reason: str = "AM05"
) -> Answer:
    """Ask for a return, under a fresh key unless one is given."""
    body = {"reason_code": reason} if amount is None else {"reason_code": reason, "amount": amount}
    path = f"/operator/payments/{payment['payment_id']}/returns"
    return await client.post(path, body, headers={"Idempotency-Key": key or new_key()})


async def test_a_payment_goes_back_and_both_sides_see_it(make: Factory, operators: Operators) -> None:
    payer, payee, payment = await paid(make)

    made = await ask(operators["operator"], payment, "150.00")

    assert (made.status, made.json["state"]) == (201, "COMPLETED"), made
    assert await payer.balances() == ("8750.00", "0.00", "8750.00")
    assert await payee.balances() == ("1250.00", "0.00", "1250.00")
    assert (await payer.payment(payment["transaction_id"]))["returned_amount"] == "150.00"
    for side, amount in ((payer, "150.00"), (payee, "-150.00")):
        entries = await side.client.get(f"/accounts/{side.account}/entries?limit=1")
        line = entries.json["data"][0]
        assert (line["kind"], line["amount"], line["payment_id"]) == ("return", amount, made.json["return_id"])


async def test_a_replay_moves_nothing_and_no_more_goes_back_than_there_was(make: Factory, operators: Operators) -> None:
    payer, _, payment = await paid(make)
    operator, key = operators["operator"], new_key()

    first, again = [await ask(operator, payment, "300.00", key=key) for _ in range(2)]
    other = await ask(operator, payment, "1.00", key=key)
    too_much = await ask(operator, payment, "100.01")
    rest = await ask(operator, payment)

    assert (first.status, again.status, again.json) == (201, 201, first.json)
    assert (other.status, other.error) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (too_much.status, too_much.error) == (422, "RETURN_EXCEEDS_PAYMENT")
    assert (rest.status, rest.json["amount"]) == (201, "100.00")
    assert await payer.balances() == ("9000.00", "0.00", "9000.00")


async def test_fifty_returns_at_once_through_both_gateways_never_pass_the_payment(
    system: System, make: Factory, operators: Operators
) -> None:
    _, payee, payment = await paid(make)
    clients = [operators["operator"].at(url) for url in system.gateway_urls]

    answers = await asyncio.gather(*(ask(clients[number % 2], payment, "30.00") for number in range(50)))

    made = [answer for answer in answers if answer.status == 201]
    assert {answer.error for answer in answers if answer.status != 201} <= {
        "RETURN_EXCEEDS_PAYMENT",
        "PAYMENT_IN_PROGRESS",
    }
    assert 0 < len(made) <= 13
    left = f"{1400 - 30 * len(made)}.00"
    assert await payee.balances() == (left, "0.00", left)


async def test_above_the_limit_two_people_return_it_and_the_trail_names_both(
    make: Factory, operators: Operators
) -> None:
    payer, _, payment = await paid(make, "4000.00")

    waiting = await ask(operators["operator"], payment, reason="FR01")
    path = f"/returns/{waiting.json['return_id']}"
    own = await operators["operator"].post(f"{path}/approve")
    before = await payer.balances()
    approved = await operators["admin"].post(f"{path}/approve")

    assert (waiting.status, waiting.json["state"]) == (201, "AWAITING_APPROVAL")
    assert (own.status, own.error) == (403, "FOUR_EYES_REQUIRED")
    assert before[0] == "5000.00"
    assert (approved.status, approved.json["state"], approved.json["decided_by"]) == (200, "COMPLETED", "admin")
    assert (await payer.balances())[0] == "9000.00"

    async def trail() -> list[dict[str, Any]] | None:
        page = await operators["auditor"].get(f"/audit?subject={waiting.json['return_id']}")
        rows = sorted(page.json["data"], key=lambda row: int(row["sequence"]))
        return rows if len(rows) == 3 else None

    rows = await eventually(trail)
    assert [(row["type"], row["data"]["requested_by"], row["data"]["decided_by"]) for row in rows] == [
        ("return.requested", "operator", None),
        ("return.approved", "operator", "admin"),
        ("return.completed", "operator", "admin"),
    ]


async def test_a_customer_returns_nothing_and_sees_no_return(make: Factory, operators: Operators) -> None:
    payer, payee, payment = await paid(make)

    for customer in (payer, payee):
        assert (await ask(customer.client, payment)).error == "FORBIDDEN"
        assert (await customer.client.get("/returns")).error == "FORBIDDEN"
    made = await ask(operators["operator"], payment)
    assert (await payer.client.post(f"/returns/{made.json['return_id']}/approve")).error == "FORBIDDEN"


async def test_who_has_spent_the_money_gives_none_back(make: Factory, operators: Operators) -> None:
    payer, payee, payment = await paid(make)
    assert (await payee.pay(payer.account, "1300.00")).status == 200

    refused = await ask(operators["operator"], payment)
    part = await ask(operators["operator"], payment, "100.00")

    assert (refused.status, refused.error) == (422, "INSUFFICIENT_FUNDS")
    assert (part.status, part.json["state"]) == (201, "COMPLETED")
    assert await payee.balances() == ("0.00", "0.00", "0.00")


async def test_a_return_to_or_from_a_listed_name_waits_for_compliance(make: Factory, operators: Operators) -> None:
    payer, payee = await make.customer(), await make.customer(name=LISTED, country="MX")
    body, key = payer.body(payee.account, "100.00"), new_key()
    await payer.client.confirm(body, key=key)
    payment = await payer.payment(body["transaction_id"])
    await _decide(operators, payment["payment_id"])
    assert (await payer.payment(body["transaction_id"]))["status"] == "SUCCESS"

    made = await ask(operators["operator"], payment)
    before = await payee.balances()
    await _decide(operators, made.json["return_id"])

    async def done() -> bool:
        found = await operators["operator"].get(f"/returns/{made.json['return_id']}")
        return bool(found.json["state"] == "COMPLETED")

    assert (made.status, made.json["state"]) == (201, "UNDER_REVIEW")
    assert before == ("1100.00", "0.00", "1100.00")
    await eventually(done)
    assert await payee.balances() == ("1000.00", "0.00", "1000.00")


async def _decide(operators: Operators, payment_id: str) -> None:
    """Clear the open case of a payment or a return."""

    async def look() -> dict[str, Any] | None:
        page = await operators["compliance"].get("/reviews?state=OPEN&limit=200")
        return next((row for row in page.json["data"] if row["payment_id"] == payment_id), None)

    case = await eventually(look)
    body = {"decision": "clear", "comment": "another date of birth"}
    answer = await operators["compliance"].post(f"/reviews/{case['review_id']}/decision", body)
    assert answer.status == 200, answer


async def test_money_that_has_left_for_another_bank_is_not_ours_to_return(
    make: Factory, operators: Operators, other_bank: OtherBank
) -> None:
    payer = await make.customer(EUR="1000.00")
    body = payer.body(NORDBANK, "250.00")
    await payer.client.confirm(body, key=new_key())

    async def completed() -> dict[str, Any] | None:
        payment = await payer.payment(body["transaction_id"])
        return payment if payment["status"] == "SUCCESS" else None

    refused = await ask(operators["operator"], await eventually(completed))

    assert (refused.status, refused.error) == (422, "RETURN_NOT_POSSIBLE")


async def test_a_payment_that_is_not_completed_is_not_returned(make: Factory, operators: Operators) -> None:
    payer, payee = await make.customer(USD="50000.00"), await make.customer()
    body = payer.body(payee.account, "20000.00")
    await payer.client.confirm(body, key=new_key())

    refused = await ask(operators["operator"], await payer.payment(body["transaction_id"]))

    assert (refused.status, refused.error) == (409, "NOT_RETURNABLE")


async def test_a_payment_for_tomorrow_can_be_cancelled_until_it_starts(make: Factory) -> None:
    payer, payee = await make.customer(), await make.customer()
    at = (datetime.now(UTC) + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body, key = payer.body(payee.account, "100.00", execute_at=at), new_key()
    ordered = await payer.client.confirm(body, key=key)

    cancelled = await payer.client.post(f"/payments/{body['transaction_id']}/cancel")
    told = await payer.client.confirm(body, key=key)

    assert (ordered.status, ordered.json["status"]) == (202, "PENDING")
    assert (cancelled.status, cancelled.json["status"]) == (200, "CANCELLED")
    assert (told.status, told.error) == (422, "PAYMENT_CANCELLED")
    assert await payer.balances() == ("1000.00", "0.00", "1000.00")
