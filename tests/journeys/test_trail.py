"""What follows a payment by event: audit rows, messages to the customer, corrections of the velocity count."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from payflow.contracts.notification import ListMessages, Notification
from payflow.kernel.errors import PayflowError
from payflow.run.local_rpc import LocalServices
from tests.support.api import Client, Customer, Factory, eventually, new_key
from tests.support.files import ended, lines_of, upload
from tests.support.other_bank import NORDBANK, OtherBank

Operators = dict[str, Client]


async def trail(operators: Operators, subject: str, *, until: str) -> list[dict[str, Any]]:
    """The audit rows about a subject, oldest first, once the row of type `until` is there."""

    async def look() -> list[dict[str, Any]]:
        page = await operators["auditor"].get(f"/audit?subject={subject}&limit=200")
        assert page.status == 200, page
        rows = list(reversed(page.json["data"]))
        return rows if any(row["type"] == until for row in rows) else []

    return list(await eventually(look))


async def messages(services: LocalServices, customer: Customer, *, until: str) -> list[str]:
    """The kinds of messages to a customer once one of kind `until` was delivered."""

    async def look() -> list[str]:
        query = ListMessages(customer_id=customer.customer_id)
        (found,) = await services.client(Notification).list_messages([query])
        assert not isinstance(found, PayflowError), found
        delivered = {message.kind for message in found.messages if message.delivered_at is not None}
        return [message.kind for message in found.messages] if until in delivered else []

    return list(await eventually(look))


async def payment_id(customer: Customer, transaction_id: str) -> str:
    return str((await customer.payment(transaction_id))["payment_id"])


async def test_every_state_of_a_payment_with_a_password_is_in_the_audit_trail(
    make: Factory, operators: Operators
) -> None:
    debtor, creditor = await make.customer(USD="50000.00"), await make.customer()
    body, key = debtor.body(creditor.account, "15000.00"), new_key()
    await debtor.client.confirm(body, key=key)
    await debtor.client.confirm(body | {"otp": await debtor.otp(body["transaction_id"])}, key=key)

    rows = await trail(operators, await payment_id(debtor, body["transaction_id"]), until="payment.completed")

    assert [row["type"] for row in rows] == ["payment.awaiting_otp", "payment.completed"]
    passed = [state for row in rows for state in row["data"]["path"]]
    assert passed == ["RECEIVED", "AWAITING_OTP", "APPROVED", "COMPLETED"]
    assert [row["version"] for row in rows] == sorted(row["version"] for row in rows)
    assert all(len(row["hash"]) == 64 for row in rows)


async def test_every_state_of_an_inter_bank_payment_is_in_the_audit_trail(
    make: Factory, operators: Operators, other_bank: OtherBank
) -> None:
    debtor = await make.customer(EUR="100.00")
    answer = await debtor.pay(NORDBANK, "10.00")

    rows = await trail(operators, await payment_id(debtor, answer.json["transaction_id"]), until="payment.completed")

    passed = [state for row in rows for state in row["data"]["path"]]
    assert passed == ["RECEIVED", "APPROVED", "HELD", "SUBMITTED", "COMPLETED"]


async def test_a_refusal_is_in_the_audit_trail_with_its_code(make: Factory, operators: Operators) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body = debtor.body(creditor.account, "5000.00")
    await debtor.client.confirm(body, key=new_key())

    rows = await trail(operators, await payment_id(debtor, body["transaction_id"]), until="payment.rejected")

    assert rows[-1]["data"]["error_code"] == "INSUFFICIENT_FUNDS"


async def test_the_audit_trail_names_no_full_account_number_code_or_token(make: Factory, operators: Operators) -> None:
    debtor, creditor = await make.customer(USD="50000.00"), await make.customer()
    body, key = debtor.body(creditor.account, "15000.00"), new_key()
    await debtor.client.confirm(body, key=key)
    code = await debtor.otp(body["transaction_id"])
    await debtor.client.confirm(body | {"otp": code}, key=key)

    rows = await trail(operators, await payment_id(debtor, body["transaction_id"]), until="payment.completed")

    text = str([row["data"] for row in rows])
    assert debtor.account not in text
    assert creditor.account not in text
    assert f"'{code}'" not in text
    assert debtor.client.token not in text


async def test_a_customer_s_records_and_sign_ins_are_in_the_audit_trail(make: Factory, operators: Operators) -> None:
    customer = await make.customer()

    rows = await trail(operators, customer.customer_id, until="customer.created")

    assert {row["type"] for row in rows} >= {"customer.created"}
    # The sign-in was told by another service, after the customer's record: it may be read a moment later.
    for _ in range(50):
        page = await operators["auditor"].get("/audit?type=security.signed_in&limit=200")
        if any(row["data"]["actor"] == customer.username for row in page.json["data"]):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("the sign-in is not in the audit trail")


async def test_an_auditor_verifies_the_chain_over_http(operators: Operators) -> None:
    answer = await operators["auditor"].get("/audit/verification")

    assert answer.status == 200
    assert answer.json["is_whole"] is True
    assert answer.json["rows"] > 0
    assert answer.json["problems"] == []


@pytest.mark.parametrize("role", ["operator", "compliance"])
async def test_only_auditors_read_the_trail(operators: Operators, role: str) -> None:
    answers = [await operators[role].get(path) for path in ("/audit", "/audit/verification")]

    assert {(answer.status, answer.error) for answer in answers} == {(403, "FORBIDDEN")}


async def test_a_customer_is_told_of_a_code_and_of_the_payment(make: Factory, services: LocalServices) -> None:
    debtor, creditor = await make.customer(USD="50000.00"), await make.customer()
    body, key = debtor.body(creditor.account, "15000.00"), new_key()
    await debtor.client.confirm(body, key=key)
    await debtor.client.confirm(body | {"otp": await debtor.otp(body["transaction_id"])}, key=key)

    kinds = await messages(services, debtor, until="payment_completed")

    assert sorted(kinds) == ["otp_code", "payment_completed"]


async def test_a_customer_is_told_of_a_refusal_and_of_money_that_came_in(
    make: Factory, services: LocalServices, other_bank: OtherBank
) -> None:
    customer = await make.customer(EUR="1.00")
    await customer.pay(NORDBANK, "10.00")
    await other_bank.pay(customer.account, "5.00", "EUR")

    await messages(services, customer, until="incoming_credited")
    kinds = await messages(services, customer, until="payment_rejected")

    assert sorted(kinds) == ["incoming_credited", "payment_rejected"]


async def test_refused_payments_are_taken_out_of_the_velocity_count(make: Factory, operators: Operators) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    bodies = [debtor.body(creditor.account, "9000.00") for _ in range(8)]
    for body in bodies:
        await debtor.client.confirm(body, key=new_key())
    await trail(operators, await payment_id(debtor, bodies[-1]["transaction_id"]), until="payment.rejected")

    async def is_low() -> bool:
        # The correction follows by event; the first payments after it may still meet the old count.
        answer = await debtor.pay(creditor.account, "1.00")
        return bool(answer.json["risk_level"] == "LOW")

    await eventually(is_low, seconds=5)


async def test_a_file_is_told_in_one_message_and_its_payments_name_it_in_the_audit_trail(
    make: Factory, operators: Operators, services: LocalServices
) -> None:
    debtor, creditor = await make.customer(USD="50000.00"), await make.customer()
    bodies = [debtor.body(creditor.account, amount) for amount in ("1.00", "2.00", "999999.00", "0")]
    accepted = await upload(debtor, lines_of(bodies), key=new_key())
    bulk_id = accepted.json["bulk_id"]
    await ended(debtor, bulk_id)
    told = await trail(operators, bulk_id, until="bulk.completed")
    rows = await trail(operators, await payment_id(debtor, bodies[0]["transaction_id"]), until="payment.completed")

    assert told[-1]["data"]["paid_minor"] == {"USD": 300}
    assert rows[-1]["data"]["bulk_id"] == bulk_id
    assert await messages(services, debtor, until="bulk_completed") == ["bulk_completed"]
    # One that was under way at the file's end, and is not made after all, is told by itself.
    await debtor.client.post(f"/payments/{bodies[2]['transaction_id']}/cancel")
    assert await messages(services, debtor, until="payment_cancelled") == ["payment_cancelled", "bulk_completed"]
