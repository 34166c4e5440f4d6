"""Each route by each role: who may, and that nobody else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.gateway import Role
from payflow.services.gateway.routes import all_handlers
from tests.builders import new_id
from tests.fakes_gateway_operators import OperatorWorld

C, O, K, A, X = Role.CUSTOMER, Role.OPERATOR, Role.COMPLIANCE, Role.AUDITOR, Role.ADMIN  # noqa: E741
EVERYBODY = {C, O, K, A, X}
ID = str(new_id())

# Route -> (an address of it, who may call it). Whoever is not named gets 403, nobody's token 401.
ROUTES: dict[str, tuple[str, set[Role]]] = {
    "GET /preferences": ("/preferences", {C}),
    "PUT /preferences": ("/preferences", {C}),
    "POST /devices": ("/devices", {C}),
    "GET /devices": ("/devices", {C}),
    "DELETE /devices/{device_id}": (f"/devices/{ID}", {C}),
    "POST /auth/logout": ("/auth/logout", EVERYBODY),
    "GET /payments": ("/payments", {C}),
    "GET /payments/{transaction_id}": ("/payments/txn_001", {C}),
    "GET /payments/{transaction_id}/events": ("/payments/txn_001/events", {C}),
    "POST /payments/{transaction_id}/cancel": ("/payments/txn_001/cancel", {C}),
    "GET /payments/bulk": ("/payments/bulk", {C}),
    "GET /payments/bulk/{bulk_id}": (f"/payments/bulk/{ID}", {C}),
    "GET /payments/bulk/{bulk_id}/items": (f"/payments/bulk/{ID}/items", {C}),
    "GET /payments/bulk/{bulk_id}/events": (f"/payments/bulk/{ID}/events", {C}),
    "POST /payments/bulk/{bulk_id}/cancel": (f"/payments/bulk/{ID}/cancel", {C}),
    "GET /accounts": ("/accounts", {C}),
    "POST /accounts": ("/accounts", {O, X}),
    "GET /accounts/{number}": ("/accounts/ACC001", {C, O, K, X}),
    "GET /accounts/{number}/entries": ("/accounts/ACC001/entries", {C, O, K, X}),
    "POST /accounts/{number}/state": ("/accounts/ACC001/state", {O, K, X}),
    "POST /customers": ("/customers", {O, X}),
    "GET /customers/{customer_id}": ("/customers/cust_001", {O, K, X}),
    "GET /customers/{customer_id}/accounts": ("/customers/cust_001/accounts", {O, K, X}),
    "POST /customers/{customer_id}/state": ("/customers/cust_001/state", {O, K, X}),
    "POST /users": ("/users", {X}),
    "GET /users": ("/users", {X}),
    "POST /users/{username}/state": ("/users/demo/state", {X}),
    "GET /reviews": ("/reviews", {K, X}),
    "GET /reviews/{review_id}": (f"/reviews/{ID}", {K, X}),
    "POST /reviews/{review_id}/decision": (f"/reviews/{ID}/decision", {K, X}),
    "GET /audit": ("/audit", {A, X}),
    "GET /audit/verification": ("/audit/verification", {A, X}),
    "GET /kyc/{customer_id}": ("/kyc/cust_001", {O, K, X}),
    "POST /kyc/{customer_id}": ("/kyc/cust_001", {O, K, X}),
    "POST /sanctions/screen": ("/sanctions/screen", {K, X}),
    "GET /sanctions/lists": ("/sanctions/lists", {K, X}),
    "GET /partner-bank/instructions": ("/partner-bank/instructions", {O, X}),
    "POST /partner-bank/instructions/{payment_id}/enquiry": (f"/partner-bank/instructions/{ID}/enquiry", {O, X}),
    "POST /partner-bank/instructions/{payment_id}/taken-back": (f"/partner-bank/instructions/{ID}/taken-back", {O, X}),
    "DELETE /partner-bank/instructions/{payment_id}/taken-back": (
        f"/partner-bank/instructions/{ID}/taken-back",
        {O, X},
    ),
    "POST /webhooks": ("/webhooks", {O, X}),
    "GET /webhooks": ("/webhooks", {O, A, X}),
    "GET /webhooks/{webhook_id}": (f"/webhooks/{ID}", {O, A, X}),
    "PATCH /webhooks/{webhook_id}": (f"/webhooks/{ID}", {O, X}),
    "DELETE /webhooks/{webhook_id}": (f"/webhooks/{ID}", {O, X}),
    "POST /webhooks/{webhook_id}/rotate-secret": (f"/webhooks/{ID}/rotate-secret", {O, X}),
    "POST /webhooks/{webhook_id}/test": (f"/webhooks/{ID}/test", {O, X}),
    "GET /webhooks/{webhook_id}/deliveries": (f"/webhooks/{ID}/deliveries", {O, A, X}),
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver": (
        f"/webhooks/{ID}/deliveries/{ID}/redeliver",
        {O, X},
    ),
    "GET /operator/payments": ("/operator/payments", {O, K, A, X}),
    "GET /operator/payments/{payment_id}": (f"/operator/payments/{ID}", {O, K, A, X}),
    "POST /operator/payments/{payment_id}/returns": (f"/operator/payments/{ID}/returns", {O, X}),
    "GET /operator/payments/{payment_id}/returns": (f"/operator/payments/{ID}/returns", {O, K, A, X}),
    "GET /returns": ("/returns", {O, K, A, X}),
    "GET /returns/{return_id}": (f"/returns/{ID}", {O, K, A, X}),
    "POST /returns/{return_id}/approve": (f"/returns/{ID}/approve", {O, K, X}),
    "POST /returns/{return_id}/decline": (f"/returns/{ID}/decline", {O, K, X}),
}
OPEN = {
    "POST /auth/login",
    "POST /auth/refresh",
    # Vendors have no token: their calls are signed (tests/ports/test_notification_callbacks.py).
    "POST /callbacks/twilio",
    "POST /callbacks/sendgrid",
    "GET /.well-known/jwks.json",
    "GET /openapi.json",
    "GET /",
    "GET /docs",
    "GET /docs/assets/{name}",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> OperatorWorld:
    return OperatorWorld(Path(tmp_path_factory.mktemp("roles")) / "keys")


def route_names() -> set[str]:
    return {
        f"{method} {path.replace(':str', '').replace(':uuid', '')}"
        for handler in all_handlers()
        for method in handler.http_methods
        for path in handler.paths
        if method != "OPTIONS"
    }


def test_every_route_is_in_this_table() -> None:
    assert route_names() == ROUTES.keys() | OPEN


@pytest.mark.parametrize("route", sorted(ROUTES))
async def test_a_route_lets_in_whom_it_should_and_nobody_else(world: OperatorWorld, route: str) -> None:
    method, (path, allowed) = route.split()[0], ROUTES[route]
    # A body that is not one: whoever is let in gets as far as 415, so nothing is changed.
    body = b"no JSON" if method in ("POST", "PUT", "PATCH") else None

    let_in = set()
    for role in Role:
        reply = await world.as_role(role, method, path, body, headers=[("content-type", "text/plain")])
        assert reply.status != 401
        if reply.status != 403:
            let_in.add(role)
        if route == "POST /auth/logout":
            world.forget(role)

    assert let_in == allowed


@pytest.mark.parametrize("route", sorted(ROUTES))
@pytest.mark.parametrize(("token", "code"), [(None, "ACCESS_TOKEN_REQUIRED"), ("made.up.token", "INVALID_TOKEN")])
async def test_nobody_gets_in_without_a_token_of_ours(
    world: OperatorWorld, route: str, token: str | None, code: str
) -> None:
    reply = await world.client.send(route.split()[0], ROUTES[route][0], token=token)

    assert (reply.status, reply.json["error"]) == (401, code)


async def test_a_customer_sees_only_their_own_account(world: OperatorWorld) -> None:
    for number in ("8", "9"):
        await world.customer(f"cust_00{number}")
        body: dict[str, Any] = {"number": f"ACC00{number}", "customer_id": f"cust_00{number}", "currency": "USD"}
        await world.as_role(Role.OPERATOR, "POST", "/accounts", body)
    token = await world.token("eighth", customer_id="cust_008")

    own = await world.client.send("GET", "/accounts/ACC008", token=token)
    other = await world.client.send("GET", "/accounts/ACC009", token=token)
    entries = await world.client.send("GET", "/accounts/ACC009/entries", token=token)

    assert (own.status, other.status, entries.status) == (200, 404, 404)
    assert other.json["error"] == "NOT_FOUND"


async def test_a_customer_with_an_operators_claim_in_the_body_is_still_a_customer(world: OperatorWorld) -> None:
    body = {"customer_id": "cust_500", "name": "Me", "role": "operator"}

    reply = await world.as_role(Role.CUSTOMER, "POST", "/customers", body)

    assert (reply.status, reply.json["error"]) == (403, "FORBIDDEN")
    assert (await world.as_role(Role.OPERATOR, "GET", "/customers/cust_500")).status == 404
