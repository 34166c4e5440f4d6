"""Operators' routes about customers, over the real services in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from payflow.contracts.gateway import Role
from tests.fakes_gateway_operators import OperatorWorld

ADA = {"customer_id": "cust_100", "name": "Ada Lovelace", "country": "GB", "email": "ada@example.org"}


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


async def test_a_customer_is_created_and_looked_at(world: OperatorWorld) -> None:
    created = await world.as_role(Role.OPERATOR, "POST", "/customers", ADA)

    found = await world.as_role(Role.COMPLIANCE, "GET", "/customers/cust_100")

    assert (created.status, found.status) == (201, 200)
    assert found.json == created.json
    assert found.json | ADA == found.json
    assert (found.json["state"], found.json["phone"]) == ("ACTIVE", None)


async def test_the_same_customer_again_is_the_record_and_another_is_a_conflict(world: OperatorWorld) -> None:
    first = await world.as_role(Role.OPERATOR, "POST", "/customers", ADA)

    again = await world.as_role(Role.OPERATOR, "POST", "/customers", ADA)
    other = await world.as_role(Role.OPERATOR, "POST", "/customers", {**ADA, "name": "Ada Byron"})

    assert (again.status, again.json) == (201, first.json)
    assert (other.status, other.json["error"]) == (409, "ALREADY_EXISTS")


async def test_an_array_of_customers_gets_an_answer_per_item_in_order(world: OperatorWorld) -> None:
    await world.as_role(Role.OPERATOR, "POST", "/customers", ADA)
    items = [{"customer_id": "cust_101", "name": "Grace Hopper"}, {**ADA, "name": "Ada Byron"}, ADA]

    reply = await world.as_role(Role.OPERATOR, "POST", "/customers", items)

    assert reply.status == 200
    assert [item.get("customer_id") for item in reply.json] == ["cust_101", None, "cust_100"]
    assert (reply.json[1]["error"], reply.json[1]["status"]) == ("ALREADY_EXISTS", 409)
    assert reply.json[1]["instance"] == "/customers"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"[]", "the array: send a list of at least 1 item."),
        (b'[{"customer_id": "a"}]', "[0]: the field name is missing."),
        (b'[{"customer_id": "a", "name": "b", "x": 1}]', "The field x in [0] is not known here; leave it out."),
        (b'[{"customer_id": "a", "name": "b", "name": "c"}]', "The field name is there twice; send it once."),
        (b'[{"customer_id": "a", "name": 1}]', "[0].name: send a text, not a whole number."),
        (b'[{"customer_id": "a", "name": "b"}], "more": [1]', None),
        (b'[{"customer_id": "a", "name": "b"}', None),
        (b"[1]", "[0]: send an object, not a whole number."),
        (b'{"customer_id": "a/b", "name": "b"}', None),
        (b'{"customer_id": "a", "name": " "}', None),
    ],
)
async def test_what_cannot_be_read_creates_nobody(world: OperatorWorld, body: bytes, detail: str | None) -> None:
    reply = await world.as_role(Role.OPERATOR, "POST", "/customers", body)

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")
    assert detail in (None, reply.json["detail"])
    assert (await world.accounts.customers(["a"])) == {}


async def test_missing_fields_are_named_all_at_once(world: OperatorWorld) -> None:
    reply = await world.as_role(Role.OPERATOR, "POST", "/customers", {"name": ""})

    assert (reply.status, reply.json["error"]) == (400, "MISSING_REQUIRED_FIELDS")
    assert reply.json["missing_fields"] == ["customer_id", "name"]


async def test_at_most_500_customers_come_in_one_array(world: OperatorWorld) -> None:
    items = [{"customer_id": f"c{number}", "name": "Ada"} for number in range(501)]

    refused = await world.as_role(Role.OPERATOR, "POST", "/customers", items)
    created = await world.as_role(Role.OPERATOR, "POST", "/customers", items[:500])

    assert (refused.status, created.status, len(created.json)) == (400, 200, 500)


async def test_a_customer_is_blocked_with_a_reason(world: OperatorWorld) -> None:
    await world.customer()
    change = {"state": "BLOCKED", "reason": "court order"}

    reply = await world.as_role(Role.COMPLIANCE, "POST", "/customers/cust_001/state", change)

    event = world.accounts.events[-1]
    assert (reply.status, reply.json["state"]) == (200, "BLOCKED")
    assert (event.type, event.data["changed_by"], event.data["reason"]) == (
        "customer.state_changed",
        "compliance",
        "court order",
    )
