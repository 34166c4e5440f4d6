"""Payments to accounts at other banks, and money that comes in from there."""

from __future__ import annotations

import uuid
from typing import Any
from uuid import UUID

import pytest

from payflow_dev.other_bank.domain import return_key
from tests.support.api import Client, Customer, Factory, eventually, new_key
from tests.support.other_bank import LUTECE, NORDBANK, NORDBANK_BIC, NORDBANK_NUMBER, OtherBank

LISTED = "Rafael Caro Quintero"


async def debtor(make: Factory) -> Customer:
    return await make.customer(EUR="1000.00")


async def ended(customer: Customer, transaction_id: str) -> dict[str, Any]:
    """The payment once it has an end state."""

    async def look() -> dict[str, Any] | None:
        payment = await customer.payment(transaction_id)
        return payment if payment["status"] not in ("PENDING", "OTP_REQUIRED") else None

    return dict(await eventually(look))


def end_to_end_id(payment: dict[str, Any]) -> str:
    """The id under which the other bank knows a payment: its id without dashes."""
    return str(payment["payment_id"]).replace("-", "")


async def booked(other_bank: OtherBank, payment: dict[str, Any]) -> str | None:
    """The other bank's own word on a payment."""
    row = await other_bank.received(end_to_end_id(payment))
    return None if row is None else str(row["status"])


@pytest.mark.parametrize(
    ("to_account", "creditor"),
    [
        (NORDBANK, {"name": "Erika Musterfrau"}),
        ("de08 9901 0010 0000 0010 01".upper().replace(" ", ""), {"name": "Erika Musterfrau", "agent": NORDBANK_BIC}),
        (LUTECE, {"name": "Jean Dupont", "country": "FR"}),
        (NORDBANK_NUMBER, {"name": "Nordlicht Verlag", "agent": NORDBANK_BIC}),
    ],
)
async def test_a_payment_that_the_other_bank_accepts_succeeds_at_once(
    make: Factory, other_bank: OtherBank, to_account: str, creditor: dict[str, str] | None
) -> None:
    customer = await debtor(make)

    answer = await customer.pay(to_account, "250.00", creditor=creditor)

    assert (answer.status, answer.json["status"]) == (200, "SUCCESS")
    assert await customer.balances() == ("750.00", "0.00", "750.00")
    payment = await customer.payment(answer.json["transaction_id"])
    assert await booked(other_bank, payment) == "ACCEPTED"


async def test_a_payment_that_the_other_bank_rejects_gives_the_money_back(make: Factory, other_bank: OtherBank) -> None:
    customer = await debtor(make)
    body, key = customer.body(NORDBANK, "250.00"), new_key()

    async with other_bank.behaving("reject", reason_code="AC04"):
        answer = await customer.client.confirm(body, key=key)
    again = await customer.client.confirm(body, key=key)

    assert (answer.status, answer.error) == (422, "PAYMENT_REFUSED")
    assert "AC04" in answer.json["detail"]
    assert again.body == answer.body
    assert await customer.balances() == ("1000.00", "0.00", "1000.00")


async def test_an_account_that_the_other_bank_does_not_have_is_its_to_reject(
    make: Factory, other_bank: OtherBank
) -> None:
    customer = await debtor(make)

    answer = await customer.pay("404", "10.00", creditor={"name": "Nobody", "agent": NORDBANK_BIC})

    assert (answer.status, answer.error) == (422, "PAYMENT_REFUSED")
    assert await customer.balances() == ("1000.00", "0.00", "1000.00")


@pytest.mark.parametrize("mode", ["silent_before", "silent_after", "cut_off", "garbage", "error", "pending"])
async def test_without_a_word_the_payment_is_pending_its_money_held_and_it_is_paid_once_in_the_end(
    make: Factory, other_bank: OtherBank, mode: str
) -> None:
    customer = await debtor(make)
    body, key = customer.body(NORDBANK, "250.00"), new_key()

    async with other_bank.behaving(mode, answers_enquiries=False):
        answer = await customer.client.confirm(body, key=key)
        held = await customer.balances()
        repeat = await customer.client.confirm(body, key=key)
    payment = await ended(customer, body["transaction_id"])
    final = await customer.client.confirm(body, key=key)

    assert (answer.status, answer.json["status"]) == (202, "PENDING")
    assert answer.json.keys() == {"status", "transaction_id", "reason"}
    assert held == ("1000.00", "250.00", "750.00")
    assert repeat.status == 202
    assert payment["status"] == "SUCCESS"
    assert (final.status, final.json["status"]) == (200, "SUCCESS")
    assert await customer.balances() == ("750.00", "0.00", "750.00")
    row = await other_bank.received(end_to_end_id(payment))
    assert row is not None
    assert (row["status"], row["amount"]) == ("ACCEPTED", "250.00")


async def test_a_late_refusal_gives_the_money_back(make: Factory, other_bank: OtherBank) -> None:
    customer = await debtor(make)
    body = customer.body(NORDBANK, "250.00")

    async with other_bank.behaving("silent_before", answers_enquiries=False):
        answer = await customer.client.confirm(body, key=new_key())
    async with other_bank.behaving("reject", reason_code="AC06"):
        payment = await ended(customer, body["transaction_id"])

    assert answer.status == 202
    assert (payment["status"], payment["error"]) == ("REJECTED", "PAYMENT_REFUSED")
    assert await customer.balances() == ("1000.00", "0.00", "1000.00")


async def test_a_short_delay_is_waited_for(make: Factory, other_bank: OtherBank) -> None:
    customer = await debtor(make)

    async with other_bank.behaving("delay", delay_ms=300):
        answer = await customer.pay(NORDBANK, "10.00")

    assert (answer.status, answer.json["status"]) == (200, "SUCCESS")


async def test_a_long_delay_is_not(make: Factory, other_bank: OtherBank) -> None:
    customer = await debtor(make)
    body = customer.body(NORDBANK, "10.00")

    async with other_bank.behaving("delay", delay_ms=2500):
        answer = await customer.client.confirm(body, key=new_key())

    assert answer.status == 202
    assert (await ended(customer, body["transaction_id"]))["status"] == "SUCCESS"


async def test_a_payment_at_the_other_bank_cannot_be_cancelled(make: Factory, other_bank: OtherBank) -> None:
    customer = await debtor(make)
    body = customer.body(NORDBANK, "10.00")

    async with other_bank.behaving("silent_after", answers_enquiries=False):
        await customer.client.confirm(body, key=new_key())
        cancelled = await customer.client.post(f"/payments/{body['transaction_id']}/cancel")

    assert (cancelled.status, cancelled.error) == (409, "NOT_CANCELLABLE")
    assert (await ended(customer, body["transaction_id"]))["status"] == "SUCCESS"


async def test_a_bank_that_nobody_knows_cannot_be_paid(make: Factory) -> None:
    customer = await debtor(make)

    answer = await customer.pay("12345", "10.00", creditor={"name": "A", "agent": "DEUTDEFFXXX"})

    assert (answer.status, answer.error) == (422, "CREDITOR_UNREACHABLE")


async def test_a_payment_to_another_bank_needs_the_creditors_name_or_nobody_could_be_screened(make: Factory) -> None:
    customer = await debtor(make)

    answer = await customer.pay(NORDBANK, "10.00", creditor=None)

    assert (answer.status, answer.json["error"]) == (422, "CREDITOR_NAME_REQUIRED")
    assert await customer.balances() == ("1000.00", "0.00", "1000.00")


async def test_a_listed_creditor_at_another_bank_is_held_for_review_before_anything_is_sent(
    make: Factory, other_bank: OtherBank
) -> None:
    customer = await debtor(make)

    answer = await customer.pay(NORDBANK, "100.00", creditor={"name": LISTED})

    assert (answer.status, answer.json["status"]) == (202, "PENDING")
    assert await customer.balances() == ("1000.00", "100.00", "900.00")
    payment = await customer.payment(answer.json["transaction_id"])
    assert payment["state"] == "UNDER_REVIEW"
    assert await booked(other_bank, payment) is None


async def test_money_from_another_bank_is_credited_once_however_often_it_is_sent(
    make: Factory, other_bank: OtherBank
) -> None:
    customer = await debtor(make)
    id = f"in-{uuid.uuid4().hex[:20]}"

    answers = [await other_bank.pay(customer.account, "75.50", "EUR", end_to_end_id=id) for _ in range(3)]

    assert {(answer.status, answer.json["status"]) for answer in answers} == {(200, "ACCEPTED")}
    assert await customer.balances() == ("1075.50", "0.00", "1075.50")


@pytest.mark.parametrize(
    ("to_account", "currency", "reason"),
    [("NOBODY", "EUR", {"AC01"}), (None, "USD", {"AC01", "AM03"})],
    ids=["no such account", "another currency"],
)
async def test_money_that_nobody_can_receive_is_rejected_with_a_reason(
    make: Factory, other_bank: OtherBank, to_account: str | None, currency: str, reason: set[str]
) -> None:
    customer = await debtor(make)

    answer = await other_bank.pay(to_account or customer.account, "10.00", currency)

    assert answer.json["status"] == "REJECTED"
    assert answer.json["reason_code"] in reason
    assert await customer.balances() == ("1000.00", "0.00", "1000.00")


async def test_money_from_a_listed_name_does_not_reach_the_account(
    make: Factory, other_bank: OtherBank, operators: dict[str, Client]
) -> None:
    customer = await debtor(make)
    id = f"in-{uuid.uuid4().hex[:20]}"

    answer = await other_bank.pay(customer.account, "10.00", "EUR", debtor_name=LISTED, end_to_end_id=id)

    assert answer.status == 200
    assert await customer.balances() == ("1000.00", "0.00", "1000.00")
    page = await operators["operator"].get("/partner-bank/instructions?direction=INCOMING")
    (instruction,) = [row for row in page.json["data"] if row["end_to_end_id"] == id]
    assert instruction["status"] == "HELD_IN_SUSPENSE"


async def held_money(
    customer: Customer, other_bank: OtherBank, operators: dict[str, Client], *, amount: str
) -> tuple[str, str]:
    """Money from a listed name: its end-to-end id, and the review that it waits for."""
    id = f"in-{uuid.uuid4().hex[:20]}"
    await other_bank.pay(customer.account, amount, "EUR", debtor_name=LISTED, end_to_end_id=id)
    instruction = await incoming(operators, id)
    reviews = await operators["compliance"].get("/reviews?state=OPEN&limit=200")
    (review,) = [row for row in reviews.json["data"] if row["payment_id"] == instruction["payment_id"]]
    return id, review["review_id"]


async def incoming(operators: dict[str, Client], end_to_end_id: str, *, direction: str = "INCOMING") -> dict[str, Any]:
    page = await operators["operator"].get(f"/partner-bank/instructions?direction={direction}&limit=200")
    (instruction,) = [row for row in page.json["data"] if row["end_to_end_id"] == end_to_end_id]
    return dict(instruction)


async def until_incoming_is(operators: dict[str, Client], end_to_end_id: str, status: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        instruction = await incoming(operators, end_to_end_id)
        return instruction if instruction["status"] == status else None

    return dict(await eventually(look))


async def test_money_in_suspense_reaches_its_creditor_once_compliance_clears_it(
    make: Factory, other_bank: OtherBank, operators: dict[str, Client]
) -> None:
    customer = await debtor(make)
    id, review_id = await held_money(customer, other_bank, operators, amount="11.00")

    decision = {"decision": "clear", "comment": "not the listed one"}
    assert (await operators["compliance"].post(f"/reviews/{review_id}/decision", decision)).status == 200

    await until_incoming_is(operators, id, "CREDITED")
    assert await customer.balances() == ("1011.00", "0.00", "1011.00")


async def test_money_in_suspense_goes_back_once_compliance_blocks_it(
    make: Factory, other_bank: OtherBank, operators: dict[str, Client]
) -> None:
    customer = await debtor(make)
    id, review_id = await held_money(customer, other_bank, operators, amount="12.00")

    decision = {"decision": "block", "comment": "the listed one"}
    assert (await operators["compliance"].post(f"/reviews/{review_id}/decision", decision)).status == 200

    returned = await until_incoming_is(operators, id, "RETURNED")
    made = await incoming(operators, id, direction="RETURN")
    at_the_bank = await other_bank.received(return_key(id, UUID(made["payment_id"]).hex))
    assert returned["reason_code"] == "RR04"
    assert made["status"] == "ACCEPTED"
    assert at_the_bank is not None
    assert (at_the_bank["status"], at_the_bank["amount"]) == ("ACCEPTED", "12.00")
    assert await customer.balances() == ("1000.00", "0.00", "1000.00")
