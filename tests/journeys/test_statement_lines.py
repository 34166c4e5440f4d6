"""What both sides of a payment, and the bank's own people, read in statements: who paid whom, and what for."""

from __future__ import annotations

import uuid
from typing import Any

from tests.support.api import Client, Customer, Factory, eventually, new_key
from tests.support.other_bank import NORDBANK, NORDBANK_BIC, OtherBank

Operators = dict[str, Client]
LISTED = "Rafael Caro Quintero"


async def newest_line(client: Client, account: str) -> dict[str, Any]:
    """The newest line of a page that has everything about its payments."""
    answer = await client.get(f"/accounts/{account}/entries?limit=1")
    assert answer.status == 200, answer
    assert answer.json["details_complete"] is True
    (line,) = answer.json["data"]
    return dict(line)


def told(line: dict[str, Any]) -> tuple[str | None, dict[str, Any] | None, str | None]:
    """Transaction id, other side and text of a line."""
    return line["transaction_id"], line["other_side"], line["remittance_information"]


async def test_both_sides_read_whom_the_money_came_from_or_went_to_and_what_for(
    make: Factory, operators: Operators
) -> None:
    payer, payee = await make.customer(name="Ada Testperson"), await make.customer(name="Grace Testperson")
    fields = {"creditor": {"name": "Grace Testpers"}, "remittance_information": "Rent März, 2. Stock"}

    paid = await payer.pay(payee.account, "12.30", **fields)

    assert paid.json["status"] == "SUCCESS", paid
    id = paid.json["transaction_id"]
    to_payee = {"account": payee.account, "name": "Grace Testpers", "agent": None}
    from_payer = {"account": payer.account, "name": "Ada Testperson", "agent": None}
    assert told(await newest_line(payer.client, payer.account)) == (id, to_payee, "Rent März, 2. Stock")
    assert told(await newest_line(payee.client, payee.account)) == (None, from_payer, "Rent März, 2. Stock")
    for role in ("operator", "compliance"):
        seen = await newest_line(operators[role], payee.account)
        assert told(seen) == (id, from_payer, "Rent März, 2. Stock")


async def test_a_return_reads_like_the_payment_that_it_gives_back(make: Factory, operators: Operators) -> None:
    payer, payee = await make.customer(name="Ada Testperson"), await make.customer(name="Grace Testperson")
    paid = await payer.pay(payee.account, "40.00", remittance_information="Order 7")
    payment = await payer.payment(paid.json["transaction_id"])

    made = await operators["operator"].post(
        f"/operator/payments/{payment['payment_id']}/returns",
        {"reason_code": "AM05", "amount": "15.00"},
        headers={"Idempotency-Key": new_key()},
    )

    assert made.status == 201, made
    of_payer, of_payee = [await newest_line(side.client, side.account) for side in (payer, payee)]
    assert (of_payer["kind"], of_payer["amount"], of_payee["amount"]) == ("return", "15.00", "-15.00")
    assert told(of_payer) == (
        paid.json["transaction_id"],
        {"account": payee.account, "name": None, "agent": None},
        "Order 7",
    )
    assert told(of_payee) == (None, {"account": payer.account, "name": "Ada Testperson", "agent": None}, "Order 7")


async def test_money_from_and_to_another_bank_is_read_with_that_bank(
    make: Factory, operators: Operators, other_bank: OtherBank
) -> None:
    customer = await make.customer(EUR="100.00")
    id = f"in-{uuid.uuid4().hex[:20]}"

    answer = await other_bank.pay(customer.account, "7.00", "EUR", debtor_name="Erika Musterfrau", end_to_end_id=id)
    assert answer.json["iso_status"] == "ACSC", answer
    came_in, seen = [await newest_line(who, customer.account) for who in (customer.client, operators["operator"])]
    paid = await customer.pay(NORDBANK, "3.00", remittance_information="Invoice 7")
    went_out = await newest_line(customer.client, customer.account)

    erika = {"account": NORDBANK, "name": "Erika Musterfrau", "agent": NORDBANK_BIC}
    assert told(came_in) == (None, erika, None)
    assert told(seen) == (id, erika, None)
    assert went_out["amount"] == "-3.00"
    assert told(went_out) == (paid.json["transaction_id"], erika, "Invoice 7")


async def test_money_that_waited_in_suspense_is_read_with_its_sender(
    make: Factory, operators: Operators, other_bank: OtherBank
) -> None:
    customer = await make.customer(EUR="100.00")
    id = f"in-{uuid.uuid4().hex[:20]}"
    await other_bank.pay(customer.account, "9.00", "EUR", debtor_name=LISTED, end_to_end_id=id)

    await clear(operators, id)
    await until_credited(customer, "109.00")

    line = await newest_line(customer.client, customer.account)
    assert line["other_side"] == {"account": NORDBANK, "name": LISTED, "agent": NORDBANK_BIC}


async def clear(operators: Operators, end_to_end_id: str) -> None:
    """Compliance clears a held payment."""
    page = await operators["operator"].get("/partner-bank/instructions?direction=INCOMING&limit=200")
    (held,) = [row for row in page.json["data"] if row["end_to_end_id"] == end_to_end_id]
    reviews = await operators["compliance"].get("/reviews?state=OPEN&limit=200")
    (review,) = [row for row in reviews.json["data"] if row["payment_id"] == held["payment_id"]]
    decision = {"decision": "clear", "comment": "not the listed one"}
    answer = await operators["compliance"].post(f"/reviews/{review['review_id']}/decision", decision)
    assert answer.status == 200, answer


async def until_credited(customer: Customer, posted: str) -> None:
    async def is_credited() -> bool:
        return (await customer.balances())[0] == posted

    await eventually(is_credited)
