"""Webhooks' routes as operators see them, over the real use cases in memory; every answer is held to the document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.gateway import Role
from tests.builders import new_id
from tests.fakes_gateway_operators import OperatorWorld

NEW = {"url": "https://example.org/hooks", "event_types": ["payment.completed"], "description": "Order desk"}


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


async def register(world: OperatorWorld, **changes: Any) -> dict[str, Any]:
    reply = await world.as_role(Role.OPERATOR, "POST", "/webhooks", {**NEW, **changes})
    assert reply.status == 201, reply.body
    registered: dict[str, Any] = reply.json
    return registered


async def test_a_webhook_is_registered_with_a_secret_that_is_told_once(world: OperatorWorld) -> None:
    registered = await register(world)

    path = f"/webhooks/{registered['webhook_id']}"
    shown = await world.as_role(Role.AUDITOR, "GET", path)
    listed = await world.as_role(Role.AUDITOR, "GET", "/webhooks")

    assert registered | NEW == registered
    assert registered["secret"].startswith("whsec_")
    assert (registered["state"], registered["created_by"]) == ("ENABLED", "operator")
    assert shown.json == {
        name: value for name, value in registered.items() if name not in ("secret", "previous_valid_until")
    }
    assert listed.json == {"data": [shown.json], "next_cursor": None}


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "http://example.org/"}, "url"),
        ({"url": "https://user:secret@example.org/"}, "url"),
        ({"url": "https://example.org/#x"}, "url"),
        ({"url": "ftp://example.org/"}, "url"),
        ({"url": "https://169.254.169.254/latest"}, "url"),
        ({"url": "https://localhost:5432/"}, "url"),
        ({"event_types": ["payment.paid"]}, "event_types"),
    ],
)
async def test_what_may_not_be_called_is_refused_and_said(world: OperatorWorld, change: Any, field: str) -> None:
    registered = await register(world)

    refused = await world.as_role(Role.OPERATOR, "POST", "/webhooks", {**NEW, **change})
    unchanged = await world.as_role(Role.OPERATOR, "PATCH", f"/webhooks/{registered['webhook_id']}", change)

    for reply in (refused, unchanged):
        assert (reply.status, reply.json["error"], reply.json["field"]) == (422, "INVALID_WEBHOOK", field)
        assert "secret" not in reply.json["detail"]
    listed = await world.as_role(Role.OPERATOR, "GET", "/webhooks")
    assert [one["url"] for one in listed.json["data"]] == [NEW["url"]]


@pytest.mark.parametrize(
    "body", [{**NEW, "event_types": []}, {**NEW, "x": 1}, {**NEW, "event_types": "*"}, {**NEW, "url": 1}]
)
async def test_what_cannot_be_read_is_400(world: OperatorWorld, body: Any) -> None:
    reply = await world.as_role(Role.OPERATOR, "POST", "/webhooks", body)

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")


async def test_missing_fields_are_named(world: OperatorWorld) -> None:
    reply = await world.as_role(Role.OPERATOR, "POST", "/webhooks", {"description": "x"})

    assert (reply.json["error"], reply.json["missing_fields"]) == ("MISSING_REQUIRED_FIELDS", ["url", "event_types"])


async def test_a_customers_webhook_needs_the_customer(world: OperatorWorld) -> None:
    await world.customer("cust_001")

    unknown = await world.as_role(Role.OPERATOR, "POST", "/webhooks", {**NEW, "customer_id": "nobody"})
    known = await register(world, customer_id="cust_001")

    assert (unknown.status, unknown.json["error"]) == (404, "CUSTOMER_NOT_FOUND")
    assert known["customer_id"] == "cust_001"


async def test_a_webhook_is_changed_disabled_and_deleted(world: OperatorWorld) -> None:
    path = f"/webhooks/{(await register(world))['webhook_id']}"

    changed = await world.as_role(Role.ADMIN, "PATCH", path, {"event_types": ["*"], "state": "DISABLED"})
    test = await world.as_role(Role.OPERATOR, "POST", f"{path}/test")
    deleted = await world.as_role(Role.OPERATOR, "DELETE", path)
    gone = await world.as_role(Role.OPERATOR, "GET", path)

    assert (changed.json["event_types"], changed.json["state"], changed.json["disabled_reason"]) == (
        ["*"],
        "DISABLED",
        "OPERATOR",
    )
    assert changed.json["description"] == NEW["description"]
    assert (test.status, test.json["error"]) == (409, "WEBHOOK_DISABLED")
    assert (deleted.status, deleted.body) == (204, b"")
    assert (gone.status, gone.json["error"]) == (404, "WEBHOOK_NOT_FOUND")
    assert [event.type for event in world.webhooks.events] == [
        "security.webhook_registered",
        "security.webhook_changed",
        "security.webhook_deleted",
    ]
    assert [event.data["actor"] for event in world.webhooks.events] == ["operator", "admin", "operator"]


async def test_a_secret_is_rotated(world: OperatorWorld) -> None:
    registered = await register(world)

    rotated = await world.as_role(Role.OPERATOR, "POST", f"/webhooks/{registered['webhook_id']}/rotate-secret")

    assert rotated.status == 200
    assert rotated.json["secret"] not in ("", registered["secret"])
    assert rotated.json["previous_valid_until"] == "2026-03-03T12:00:00Z"


async def test_a_test_is_a_delivery_that_can_be_sent_again(world: OperatorWorld) -> None:
    path = f"/webhooks/{(await register(world))['webhook_id']}"

    sent = await world.as_role(Role.OPERATOR, "POST", f"{path}/test")
    listed = await world.as_role(Role.AUDITOR, "GET", f"{path}/deliveries?state=PENDING")
    again = await world.as_role(Role.OPERATOR, "POST", f"{path}/deliveries/{sent.json['delivery_id']}/redeliver")
    none = await world.as_role(Role.AUDITOR, "GET", f"{path}/deliveries?state=FAILED")

    assert (sent.status, sent.json["event_type"], sent.json["attempts"]) == (202, "webhook.test", 0)
    assert listed.json == {"data": [sent.json], "next_cursor": None}
    assert (again.status, again.json["delivery_id"]) == (202, sent.json["delivery_id"])
    assert none.json["data"] == []


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/webhooks/{id}", None),
        ("PATCH", "/webhooks/{id}", {}),
        ("DELETE", "/webhooks/{id}", None),
        ("POST", "/webhooks/{id}/rotate-secret", None),
        ("POST", "/webhooks/{id}/test", None),
        ("GET", "/webhooks/{id}/deliveries", None),
        ("POST", "/webhooks/{id}/deliveries/{id}/redeliver", None),
    ],
)
async def test_what_is_not_there_is_404(world: OperatorWorld, method: str, path: str, body: Any) -> None:
    reply = await world.as_role(Role.OPERATOR, method, path.replace("{id}", str(new_id())), body)

    assert (reply.status, reply.json["error"]) == (404, "WEBHOOK_NOT_FOUND")
