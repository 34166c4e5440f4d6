"""Operators' routes for returns as clients see them, over the real use cases in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.confirm import PaymentState
from payflow.contracts.gateway import Role
from payflow.services.confirm.domain import Payment
from tests.builders import NOON, new_id
from tests.fakes_gateway import Reply, a_payment, a_payment_body
from tests.fakes_gateway_operators import OperatorWorld


class ReturnWorld(OperatorWorld):
    """Two customers, and a completed payment of 5,000.00 USD from the first to the second."""

    payment_id: str

    async def prepare(self) -> None:
        for number, balance in (("1", "0"), ("2", "5000.00")):
            customer = {"customer_id": f"cust_00{number}", "name": "Ada Byron"}
            account = {"number": f"ACC00{number}", "customer_id": f"cust_00{number}", "currency": "USD"}
            await self.as_role(Role.ADMIN, "POST", "/customers", customer)
            await self.as_role(Role.ADMIN, "POST", "/accounts", {**account, "opening_balance": balance})
        parties = await self.accounts.parties(["ACC001", "ACC002"])
        payment = Payment(
            payment_id=new_id(),
            customer_id="cust_001",
            idempotency_key="k",
            fingerprint=b"",
            transaction_id="txn_001",
            amount="5000.00",
            amount_minor=500_000,
            currency="USD",
            debtor_account="ACC001",
            creditor_account="ACC002",
            debtor_account_id=parties["ACC001"].account_id,
            creditor_account_id=parties["ACC002"].account_id,
            creditor=None,
            remittance_information=None,
            traceparent="",
            received_at=NOON,
            updated_at=NOON,
            state=PaymentState.COMPLETED,
            completed_at=NOON,
        )
        await self.payment_store.claim([payment])
        self.payment_id = str(payment.payment_id)

    async def ask(self, body: Any, *, key: str | None = "k1", role: Role = Role.OPERATOR) -> Reply:
        headers = [("content-type", "application/json"), *([("idempotency-key", key)] if key else [])]
        path = f"/operator/payments/{self.payment_id}/returns"
        return await self.as_role(role, "POST", path, body, headers=headers)


@pytest.fixture
async def world(tmp_path: Path) -> ReturnWorld:
    world = ReturnWorld(tmp_path / "keys")
    await world.prepare()
    return world


async def test_a_payment_is_returned_in_part(world: ReturnWorld) -> None:
    reply = await world.ask({"reason_code": "AM05", "amount": "250.00", "note": "paid twice"})

    assert reply.status == 201
    assert (
        reply.json
        | {
            "payment_id": world.payment_id,
            "state": "COMPLETED",
            "amount": "250.00",
            "currency": "USD",
            "from_account": "ACC002",
            "to_account": "ACC001",
            "reason_code": "AM05",
            "note": "paid twice",
            "needs_approval": False,
            "requested_by": "operator",
            "decided_by": None,
        }
        == reply.json
    )
    assert reply.json["return_id"] != world.payment_id


async def test_the_same_key_tells_the_same_return_and_other_content_is_refused(world: ReturnWorld) -> None:
    first = await world.ask({"reason_code": "AM05", "amount": "250.00"})

    again = await world.ask({"reason_code": "AM05", "amount": "250.0"})
    other = await world.ask({"reason_code": "AM05", "amount": "251.00"})

    assert (again.status, again.json) == (201, first.json)
    assert (other.status, other.json["error"]) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_above_the_limit_it_waits_for_another_person(world: ReturnWorld) -> None:
    waiting = await world.ask({"reason_code": "FR01"})
    path = f"/returns/{waiting.json['return_id']}"

    own = await world.as_role(Role.OPERATOR, "POST", f"{path}/approve")
    approved = await world.as_role(Role.COMPLIANCE, "POST", f"{path}/approve")
    again = await world.as_role(Role.COMPLIANCE, "POST", f"{path}/approve")
    late = await world.as_role(Role.ADMIN, "POST", f"{path}/decline")
    looked = await world.as_role(Role.AUDITOR, "GET", path)

    assert (waiting.status, waiting.json["state"], waiting.json["amount"]) == (201, "AWAITING_APPROVAL", "5000.00")
    assert (own.status, own.json["error"]) == (403, "FOUR_EYES_REQUIRED")
    assert (approved.status, approved.json["state"], approved.json["decided_by"]) == (200, "COMPLETED", "compliance")
    assert (again.status, again.json) == (200, approved.json)
    assert (late.status, late.json["error"]) == (409, "RETURN_ALREADY_DECIDED")
    assert looked.json == approved.json


async def test_a_declined_return_leaves_its_amount_to_another(world: ReturnWorld) -> None:
    waiting = await world.ask({"reason_code": "FR01"})

    declined = await world.as_role(Role.ADMIN, "POST", f"/returns/{waiting.json['return_id']}/decline")
    another = await world.ask({"reason_code": "FR01"}, key="k2")

    assert (declined.status, declined.json["state"], declined.json["error"]) == (200, "DECLINED", "PAYMENT_REFUSED")
    assert another.json["state"] == "AWAITING_APPROVAL"


async def test_what_waits_is_found_in_the_list(world: ReturnWorld) -> None:
    made = await world.ask({"reason_code": "AM05", "amount": "1.00"})
    waiting = await world.ask({"reason_code": "FR01"}, key="k2")

    of_payment = await world.as_role(Role.AUDITOR, "GET", f"/operator/payments/{world.payment_id}/returns")
    waits = await world.as_role(Role.COMPLIANCE, "GET", "/returns?state=AWAITING_APPROVAL")
    page = await world.as_role(Role.OPERATOR, "GET", "/returns?limit=1")

    assert of_payment.json == {"data": [waiting.json, made.json], "next_cursor": None}
    assert waits.json["data"] == [waiting.json]
    assert (page.json["data"], page.json["next_cursor"]) == ([waiting.json], waiting.json["return_id"])


@pytest.mark.parametrize(
    ("body", "key", "status", "code"),
    [
        ({"reason_code": "AM05", "amount": "1"}, None, 400, "MISSING_IDEMPOTENCY_KEY"),
        ({"reason_code": "AM05", "amount": "1"}, "ä", 400, "INVALID_IDEMPOTENCY_KEY"),
        ({"amount": "1"}, "k", 400, "MISSING_REQUIRED_FIELDS"),
        ({"reason_code": "XXXX"}, "k", 400, "MALFORMED_REQUEST"),
        ({"reason_code": "AM05", "amount": "1", "to": "ACC003"}, "k", 400, "MALFORMED_REQUEST"),
        ({"reason_code": "AM05", "amount": "5000.01"}, "k", 422, "RETURN_EXCEEDS_PAYMENT"),
        ({"reason_code": "AM05", "amount": "0.001"}, "k", 422, "INVALID_AMOUNT"),
    ],
)
async def test_what_does_not_fit_is_refused(
    world: ReturnWorld, body: Any, key: str | None, status: int, code: str
) -> None:
    reply = await world.ask(body, key=key)

    assert (reply.status, reply.json["error"]) == (status, code)
    assert (await world.as_role(Role.OPERATOR, "GET", "/returns")).json["data"] == []


async def test_a_refused_return_tells_so_each_time_and_names_itself(world: ReturnWorld) -> None:
    await world.as_role(Role.ADMIN, "POST", "/accounts/ACC002/state", {"state": "BLOCKED_DEBIT", "reason": "x"})
    body = {"reason_code": "AM05", "amount": "10.00"}

    first, again = await world.ask(body), await world.ask(body)

    found = await world.as_role(Role.OPERATOR, "GET", f"/returns/{first.json['return_id']}")
    assert (first.status, first.json["error"]) == (422, "ACCOUNT_BLOCKED")
    assert (again.json["error"], again.json["return_id"]) == ("ACCOUNT_BLOCKED", first.json["return_id"])
    assert (found.json["state"], found.json["error"]) == ("REJECTED", "ACCOUNT_BLOCKED")


async def test_nobody_returns_a_payment_of_their_own(world: ReturnWorld) -> None:
    await world.user("clerk", role=Role.OPERATOR, customer_id="cust_002")
    token = (await world.sign_in("clerk"))["access_token"]
    headers = [("content-type", "application/json"), ("idempotency-key", "k")]
    path = f"/operator/payments/{world.payment_id}/returns"

    reply = await world.client.send("POST", path, body={"reason_code": "CUST"}, token=token, headers=headers)

    assert (reply.status, reply.json["error"]) == (403, "RETURN_OWN_PAYMENT")


@pytest.mark.parametrize(("method", "what"), [("GET", ""), ("POST", "/approve"), ("POST", "/decline")])
async def test_an_unknown_return_is_not_found(world: ReturnWorld, method: str, what: str) -> None:
    reply = await world.as_role(Role.ADMIN, method, f"/returns/{new_id()}{what}")

    assert (reply.status, reply.json["error"]) == (404, "RETURN_NOT_FOUND")


async def test_a_customer_sees_what_has_come_back(world: ReturnWorld) -> None:
    body = a_payment_body()
    payment = a_payment(
        transaction_id=body["transaction_id"], state=PaymentState.COMPLETED, returned_minor=25_000, currency="USD"
    )
    world.payments.add(payment)

    seen = await world.as_role(Role.CUSTOMER, "GET", f"/payments/{payment.transaction_id}")

    assert seen.json["returned_amount"] == "250.00"
