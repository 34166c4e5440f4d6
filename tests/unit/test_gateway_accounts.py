"""Operators' routes about accounts, over the real services in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.gateway import Role
from tests.fakes_gateway_operators import OperatorWorld


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


async def test_an_account_is_opened_with_a_balance_and_shown_to_all_who_may_see_it(world: OperatorWorld) -> None:
    await world.customer()
    body = {"number": "ACC100", "customer_id": "cust_001", "currency": "JPY", "opening_balance": "5000"}

    opened = await world.as_role(Role.OPERATOR, "POST", "/accounts", body)

    assert opened.status == 201
    assert (opened.json["posted"], opened.json["available"], opened.json["status"]) == ("5000", "5000", "OPEN")
    for role in (Role.CUSTOMER, Role.OPERATOR, Role.COMPLIANCE):
        shown = await world.as_role(role, "GET", "/accounts/ACC100")
        lines = await world.as_role(role, "GET", "/accounts/ACC100/entries")
        assert (shown.status, shown.json) == (200, opened.json)
        assert [line["amount"] for line in lines.json["data"]] == ["5000"]
    listed = await world.as_role(Role.OPERATOR, "GET", "/customers/cust_001/accounts")
    assert listed.json == {"data": [opened.json], "next_cursor": None}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"opening_balance": "0.00"}, 201, None),
        ({"opening_balance": "0"}, 201, None),
        ({"opening_balance": "0.000"}, 422, "INVALID_AMOUNT"),
        ({"opening_balance": "1.234"}, 422, "INVALID_AMOUNT"),
        ({"opening_balance": "-5"}, 422, "INVALID_AMOUNT"),
        ({"opening_balance": "1e3"}, 422, "INVALID_AMOUNT"),
        ({"opening_balance": ""}, 422, "INVALID_AMOUNT"),
        ({"opening_balance": 5}, 400, "MALFORMED_REQUEST"),
        ({"currency": "ZZZ"}, 422, "UNKNOWN_CURRENCY"),
        ({"currency": "usd"}, 400, "MALFORMED_REQUEST"),
        ({"number": "A C"}, 400, "MALFORMED_REQUEST"),
        ({"customer_id": "nobody"}, 404, "CUSTOMER_NOT_FOUND"),
    ],
)
async def test_new_accounts_are_checked(
    world: OperatorWorld, changes: dict[str, Any], status: int, code: str | None
) -> None:
    await world.customer()
    body = {"number": "ACC100", "customer_id": "cust_001", "currency": "USD", **changes}

    reply = await world.as_role(Role.OPERATOR, "POST", "/accounts", body)

    assert (reply.status, reply.json.get("error")) == (status, code)


async def test_an_account_is_blocked_and_opened_again(world: OperatorWorld) -> None:
    await world.customer()
    body = {"number": "ACC100", "customer_id": "cust_001", "currency": "USD"}
    await world.as_role(Role.OPERATOR, "POST", "/accounts", body)

    states = [
        (await world.as_role(Role.OPERATOR, "POST", "/accounts/ACC100/state", {"state": state, "reason": "x"})).json
        for state in ("BLOCKED_DEBIT", "OPEN")
    ]

    assert [state["status"] for state in states] == ["BLOCKED_DEBIT", "OPEN"]
    assert world.accounts.events[-1].data["changed_by"] == "operator"


@pytest.mark.parametrize("role", [Role.CUSTOMER, Role.OPERATOR])
async def test_an_account_is_shown_as_of_an_instant(world: OperatorWorld, role: Role) -> None:
    await world.customer()
    body = {"number": "ACC100", "customer_id": "cust_001", "currency": "USD", "opening_balance": "25.00"}
    await world.as_role(Role.OPERATOR, "POST", "/accounts", body)

    shown = [
        (await world.as_role(role, "GET", f"/accounts/ACC100?at={at}")).json
        for at in ("2026-03-02", "2026-03-02T13:00:00+01:00", "2026-03-02T12:00:00.000Z", "2026-03-02T11:59:59.999999Z")
    ]
    future = await world.as_role(role, "GET", "/accounts/ACC100?at=2026-03-02T12:00:01Z")

    assert [(one["posted"], one["as_of"]) for one in shown] == [
        ("0.00", "2026-03-02T00:00:00Z"),
        ("25.00", "2026-03-02T12:00:00Z"),
        ("25.00", "2026-03-02T12:00:00Z"),
        ("0.00", "2026-03-02T11:59:59.999999Z"),
    ]
    assert (future.status, future.json["error"]) == (400, "INSTANT_NOT_PASSED")


async def test_a_statement_of_a_range_has_the_balances_around_it(world: OperatorWorld) -> None:
    await world.customer()
    body = {"number": "ACC100", "customer_id": "cust_001", "currency": "USD", "opening_balance": "25.00"}
    await world.as_role(Role.OPERATOR, "POST", "/accounts", body)

    day = await world.as_role(Role.OPERATOR, "GET", "/accounts/ACC100/entries?from=2026-03-02&to=2026-03-03")
    later = await world.as_role(Role.CUSTOMER, "GET", "/accounts/ACC100/entries?from=2026-03-03")

    assert (day.json["opening_balance"], day.json["closing_balance"], len(day.json["data"])) == ("0.00", "25.00", 1)
    assert (later.json["opening_balance"], later.json["closing_balance"], later.json["data"]) == ("25.00", "25.00", [])


async def test_a_closed_account_stays_closed(world: OperatorWorld) -> None:
    await world.customer()
    await world.as_role(
        Role.OPERATOR, "POST", "/accounts", {"number": "ACC100", "customer_id": "cust_001", "currency": "USD"}
    )

    replies = [
        await world.as_role(Role.OPERATOR, "POST", "/accounts/ACC100/state", {"state": state, "reason": "x"})
        for state in ("BLOCKED", "BLOCKED_CREDIT", "BLOCKED_DEBIT", "CLOSED", "OPEN", "CLOSED")
    ]

    assert [reply.status for reply in replies] == [200, 200, 200, 200, 422, 200]
    assert replies[4].json["error"] == "ACCOUNT_CLOSED"


async def test_an_account_with_money_is_not_closed(world: OperatorWorld) -> None:
    await world.customer()
    body = {"number": "ACC100", "customer_id": "cust_001", "currency": "USD", "opening_balance": "1.00"}
    await world.as_role(Role.OPERATOR, "POST", "/accounts", body)

    closed = await world.as_role(Role.OPERATOR, "POST", "/accounts/ACC100/state", {"state": "CLOSED", "reason": "x"})

    assert (closed.status, closed.json["error"]) == (422, "ACCOUNT_NOT_EMPTY")
