"""Operators' routes about reviews, over the real services in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from payflow.contracts.gateway import Role
from tests.fakes_gateway_operators import LISTED_NAME, OperatorWorld


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


@pytest.mark.parametrize(("decision", "state"), [("clear", "COMPLETED"), ("block", "REJECTED")])
async def test_a_review_is_read_decided_once_and_its_payment_hears_of_it(
    world: OperatorWorld, decision: str, state: str
) -> None:
    payment, review_id = await world.review()
    listed = await world.as_role(Role.COMPLIANCE, "GET", "/reviews?state=OPEN")
    seen = await world.as_role(Role.COMPLIANCE, "GET", f"/reviews/{review_id}")
    body = {"decision": decision, "comment": "checked the date of birth"}

    decided = await world.as_role(Role.COMPLIANCE, "POST", f"/reviews/{review_id}/decision", body)

    other = {"decision": "block" if decision == "clear" else "clear", "comment": "no"}
    against = await world.as_role(Role.COMPLIANCE, "POST", f"/reviews/{review_id}/decision", other)
    left = await world.as_role(Role.COMPLIANCE, "GET", "/reviews?state=OPEN")
    shown = await world.as_role(Role.COMPLIANCE, "GET", f"/operator/payments/{payment.payment_id}")
    assert [review["review_id"] for review in listed.json["data"]] == [str(review_id)]
    assert seen.json["review"]["matches"][0]["screened_name"] == LISTED_NAME
    assert seen.json["payment"]["payment_id"] == str(payment.payment_id)
    assert (decided.status, decided.json["decided_by"]) == (200, "compliance")
    assert (against.status, against.json["error"]) == (409, "REVIEW_ALREADY_DECIDED")
    assert left.json == {"data": [], "next_cursor": None}
    assert shown.json["payment"]["state"] == state


async def test_nobody_decides_about_a_payment_of_their_own(world: OperatorWorld) -> None:
    await world.customer("cust_001")
    await world.customer("cust_002")
    payment, review_id = await world.review()
    password = "a long enough password"
    for username, customer_id in (("own", payment.customer_id), ("other", "cust_002")):
        body = {"username": username, "role": "compliance", "password": password, "customer_id": customer_id}
        made = await world.as_role(Role.ADMIN, "POST", "/users", body)
        assert (made.status, made.json["customer_id"]) == (201, customer_id)
    own, other = [(await world.sign_in(name, password))["access_token"] for name in ("own", "other")]
    path, decision = f"/reviews/{review_id}/decision", {"decision": "clear", "comment": "it is me"}

    refused = await world.client.send("POST", path, body=decision, token=own)
    waiting = await world.as_role(Role.COMPLIANCE, "GET", f"/reviews/{review_id}")
    decided = await world.client.send("POST", path, body=decision, token=other)

    assert (refused.status, refused.json["error"]) == (403, "REVIEW_OWN_PAYMENT")
    assert waiting.json["review"]["state"] == "OPEN"
    assert (decided.status, decided.json["decided_by"]) == (200, "other")


async def test_an_administrator_too_does_not_decide_about_their_own_payment(world: OperatorWorld) -> None:
    payment, review_id = await world.review()
    await world.user("boss", role=Role.ADMIN, customer_id=payment.customer_id)
    token = (await world.sign_in("boss"))["access_token"]
    body = {"decision": "clear", "comment": "it is me"}

    refused = await world.client.send("POST", f"/reviews/{review_id}/decision", body=body, token=token)

    assert (refused.status, refused.json["error"]) == (403, "REVIEW_OWN_PAYMENT")


async def test_a_review_of_incoming_money_has_no_payment_of_ours(world: OperatorWorld) -> None:
    payment, review_id = await world.review()
    world.payments.payments.clear()

    seen = await world.as_role(Role.COMPLIANCE, "GET", f"/reviews/{review_id}")

    assert (seen.status, seen.json["payment"]) == (200, None)
    assert seen.json["review"]["payment_id"] == str(payment.payment_id)
