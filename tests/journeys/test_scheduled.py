"""Payments ordered now and made later, over HTTP: singly and in a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support.api import Customer, Factory, eventually, new_key
from tests.support.files import ended, lines_of, results, upload


def soon(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


async def becomes(customer: Customer, transaction_id: str, status: str) -> dict[str, Any]:
    async def look() -> Any:
        payment = await customer.payment(transaction_id)
        return payment if payment["status"] == status else None

    return dict(await eventually(look, seconds=20, pause_s=0.2))


async def test_a_payment_is_made_on_its_day_and_not_before(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body, key = debtor.body(creditor.account, execute_at=soon(3)), new_key()

    ordered = await debtor.client.confirm(body, key=key)
    before = await debtor.balances()
    made = await becomes(debtor, body["transaction_id"], "SUCCESS")
    again = await debtor.client.confirm(body, key=key)

    assert (ordered.status, ordered.json["status"]) == (202, "PENDING")
    assert before == ("1000.00", "0.00", "1000.00")
    assert made["confirmed_at"] >= made["execute_at"]
    assert (again.status, again.json["status"]) == (200, "SUCCESS")
    assert await debtor.balances() == ("900.00", "0.00", "900.00")


async def test_a_payment_is_cancelled_before_its_day(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    body, key = debtor.body(creditor.account, execute_at=soon(60)), new_key()
    await debtor.client.confirm(body, key=key)

    cancelled = await debtor.client.post(f"/payments/{body['transaction_id']}/cancel")
    again = await debtor.client.confirm(body, key=key)

    assert (cancelled.status, cancelled.json["status"]) == (200, "CANCELLED")
    assert (again.status, again.error) == (422, "PAYMENT_CANCELLED")
    assert await debtor.balances() == ("1000.00", "0.00", "1000.00")


async def test_a_time_that_has_passed_is_refused(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    answer = await debtor.pay(creditor.account, execute_at=soon(-60))

    assert (answer.status, answer.error) == (422, "INVALID_EXECUTION_TIME")


async def test_each_line_of_a_file_has_its_own_day(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    bodies = [
        debtor.body(creditor.account),
        debtor.body(creditor.account, execute_at=soon(4)),
        debtor.body(creditor.account, execute_at=soon(60)),
        debtor.body(creditor.account, execute_at="someday"),
    ]

    accepted = await upload(debtor, lines_of(bodies), key=new_key())
    bulk_id = accepted.json["bulk_id"]
    done = await ended(debtor, bulk_id)
    await becomes(debtor, bodies[1]["transaction_id"], "SUCCESS")
    await debtor.client.post(f"/payments/{bodies[2]['transaction_id']}/cancel")

    assert done["counts"] == {"SUCCESS": 1, "PENDING": 2, "INVALID": 1}
    assert [item["status"] for item in await results(debtor, bulk_id)] == [
        "SUCCESS",
        "SUCCESS",
        "CANCELLED",
        "INVALID",
    ]
    assert await debtor.balances() == ("800.00", "0.00", "800.00")
