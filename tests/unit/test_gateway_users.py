"""Operators' routes about users, over the real services in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.gateway import Role
from tests.fakes_gateway import a_payment_body
from tests.fakes_gateway_operators import OperatorWorld


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


async def test_a_user_is_made_signs_in_and_is_kept_out(world: OperatorWorld) -> None:
    body = {"username": "edsger", "role": "operator", "password": "a long enough password"}
    made = await world.as_role(Role.ADMIN, "POST", "/users", body)
    token = (await world.sign_in("edsger", body["password"]))["access_token"]

    disabled = await world.as_role(Role.ADMIN, "POST", "/users/edsger/state", {"state": "DISABLED"})

    listed = await world.as_role(Role.ADMIN, "GET", "/users")
    later = await world.client.send("GET", "/customers/cust_001", token=token)
    again = await world.client.send("POST", "/auth/login", body={"username": "edsger", "password": body["password"]})
    assert (made.status, made.json["state"], disabled.json["state"]) == (201, "ENABLED", "DISABLED")
    assert [(user["username"], user["state"]) for user in listed.json["data"]] == [
        ("admin", "ENABLED"),
        ("edsger", "DISABLED"),
    ]
    assert "password" not in made.body.decode()
    assert (later.status, again.status) == (401, 401)


async def test_users_are_listed_page_by_page(world: OperatorWorld) -> None:
    for name in ("carol", "bob"):
        await world.user(name)

    first = (await world.as_role(Role.ADMIN, "GET", "/users?limit=2")).json
    second = (await world.as_role(Role.ADMIN, "GET", f"/users?limit=2&cursor={first['next_cursor']}")).json

    assert [user["username"] for user in first["data"] + second["data"]] == ["admin", "bob", "carol"]
    assert second["next_cursor"] is None


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"role": "customer"}, 422, "VALIDATION_FAILED"),
        ({"role": "customer", "customer_id": "nobody"}, 404, "CUSTOMER_NOT_FOUND"),
        ({"customer_id": "nobody"}, 404, "CUSTOMER_NOT_FOUND"),
        ({"role": "king"}, 400, "MALFORMED_REQUEST"),
        ({"password": "short"}, 400, "MALFORMED_REQUEST"),
        ({"username": "admin"}, 409, "USER_EXISTS"),
        ({"password_hash": "x"}, 400, "MALFORMED_REQUEST"),
    ],
)
async def test_new_users_are_checked(world: OperatorWorld, changes: dict[str, Any], status: int, code: str) -> None:
    body = {"username": "edsger", "role": "operator", "password": "a long enough password", **changes}

    reply = await world.as_role(Role.ADMIN, "POST", "/users", body)

    assert (reply.status, reply.json["error"]) == (status, code)


async def test_nobody_disables_themselves(world: OperatorWorld) -> None:
    reply = await world.as_role(Role.ADMIN, "POST", "/users/Admin/state", {"state": "DISABLED"})

    assert (reply.status, reply.json["error"]) == (422, "VALIDATION_FAILED")


@pytest.mark.parametrize("role", [role for role in Role if role is not Role.CUSTOMER])
async def test_a_user_of_the_bank_who_is_a_customer_too_pays_only_as_a_customer(
    world: OperatorWorld, role: Role
) -> None:
    await world.user("both", role=role, customer_id="cust_001")
    token = (await world.sign_in("both"))["access_token"]

    replies = [
        await world.client.send("POST", "/payment/confirm", body=a_payment_body(), token=token, key="k1"),
        await world.client.send("GET", "/payments", token=token),
        await world.client.send("GET", "/accounts", token=token),
        await world.client.send("POST", "/payments/txn_001/cancel", token=token),
    ]

    assert [(reply.status, reply.json["error"]) for reply in replies] == [(403, "FORBIDDEN")] * 4
