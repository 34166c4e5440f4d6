"""The OpenAPI document: valid, complete, true to the routes; and its page, which needs nothing from elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from payflow import __version__
from payflow.contracts.gateway import Role
from payflow.contracts.problems import PROBLEMS
from payflow.platform.http.wording import advice
from payflow.services.gateway.routes import all_handlers
from payflow.services.gateway.routes.openapi import openapi_document
from payflow.services.gateway.routes.openapi.document import build_document
from payflow.services.gateway.routes.openapi.operations import Answer, Operation
from tests.fakes_gateway import a_payment_body
from tests.fakes_gateway_operators import OperatorWorld
from tests.openapi_contract import OpenApiContract

DOCUMENT: dict[str, Any] = msgspec.json.decode(openapi_document()[0])
BY_HAND = {"POST /payment/confirm", "POST /payments/bulk", "GET /health"}
# Amounts and the Idempotency-Key have messages of their own.
READ_BY_HAND = {r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", "^[ -~]+$"}
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def responses_of(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation's responses, behind their references."""
    shared = DOCUMENT["components"]["responses"]
    return {
        status: shared[response["$ref"].rsplit("/", 1)[1]] if "$ref" in response else response
        for status, response in operation["responses"].items()
    }


def patterns_in(part: Any) -> set[str]:
    """Every pattern of a text that JSON carries in this part of the document."""
    if isinstance(part, list):
        return set().union(*map(patterns_in, part))
    if not isinstance(part, dict):
        return set()
    own = {part["pattern"]} if isinstance(part.get("pattern"), str) else set()
    return own.union(*map(patterns_in, part.values()))


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


@pytest.fixture(scope="module")
def contract() -> OpenApiContract:
    return OpenApiContract(DOCUMENT)


def test_the_document_is_valid_openapi_3_1() -> None:
    errors = [f"{error.json_path}: {error.message}" for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()]

    assert DOCUMENT["openapi"] == "3.1.0"
    assert errors == []


def test_every_route_is_documented_and_nothing_else() -> None:
    routes = {
        f"{method} {re.sub(':[a-z]+}', '}', path)}"
        for handler in all_handlers()
        for method in handler.http_methods
        for path in handler.paths
        if method != "OPTIONS"
    }

    assert OPERATIONS.keys() == routes | BY_HAND


def test_what_the_text_refers_to_is_there() -> None:
    referred = set(re.findall(r'"\$ref":"#/([^"]+)"', openapi_document()[0].decode()))

    for pointer in referred:
        value: Any = DOCUMENT
        for part in pointer.split("/"):
            value = value[part]

    defined = {
        f"components/{kind}/{name}"
        for kind in ("schemas", "examples", "responses")
        for name in DOCUMENT["components"][kind]
    }
    assert defined - referred == set()


@pytest.mark.parametrize("key", sorted(OPERATIONS))
def test_an_operation_says_what_it_does_and_for_whom(key: str) -> None:
    operation = OPERATIONS[key]

    assert len(operation["summary"]) > 3
    assert len(operation["description"]) > 10
    if operation["security"]:
        assert "For: " in operation["description"]
        assert set(responses_of(operation)["401"]["content"]["application/problem+json"]["examples"]) >= {
            "ACCESS_TOKEN_REQUIRED",
            "INVALID_TOKEN",
            "TOKEN_REVOKED",
        }
    if key != "GET /health":
        assert {"RateLimit", "RateLimit-Policy", "RateLimit-Remaining"} <= responses_of(operation)["429"][
            "headers"
        ].keys()


@pytest.mark.parametrize("key", sorted(OPERATIONS))
def test_every_example_fits_its_schema(contract: OpenApiContract, key: str) -> None:
    method, path = key.split()
    operation, place = OPERATIONS[key], ("paths", path, method.lower())
    shown = 0

    body = operation.get("requestBody", {"content": {}})["content"]
    for example in body.get("application/json", {}).get("examples", {}).values():
        contract.check_value(example["value"], *place, "requestBody", "content", "application/json", "schema")
        shown += 1
    for status, response in responses_of(operation).items():
        for kind, content in response.get("content", {}).items():
            for name, example in content.get("examples", {}).items():
                value = DOCUMENT["components"]["examples"][name]["value"] if "$ref" in example else example["value"]
                _, response_place = contract.response_of(operation, path, method, status)
                contract.check_value(value, *response_place, "content", kind, "schema")
                shown += status.startswith("2")
    for parameter in operation.get("parameters", []):
        if parameter["in"] == "path":
            place_of = (*place, "parameters", str(operation["parameters"].index(parameter)), "schema")
            contract.check_value(parameter["example"], *place_of)

    has_nothing_to_show = next(iter(operation["responses"])) == "204"
    assert shown or has_nothing_to_show or path in ("/openapi.json", "/docs", "/docs/assets/{name}")


def test_every_refusal_stands_at_its_status() -> None:
    for operation in OPERATIONS.values():
        for status, response in responses_of(operation).items():
            for code in response.get("content", {}).get("application/problem+json", {}).get("examples", {}):
                assert PROBLEMS[code].status == int(status)


def test_bodies_say_that_unknown_fields_are_refused() -> None:
    for operation in OPERATIONS.values():
        schema = operation.get("requestBody", {"content": {}})["content"].get("application/json", {}).get("schema", {})
        for name in re.findall(r"schemas/(\w+)", str(schema)):
            assert DOCUMENT["components"]["schemas"][name]["additionalProperties"] is False, name


@pytest.mark.parametrize("pattern", sorted(patterns_in(DOCUMENT) - READ_BY_HAND))
def test_what_does_not_fit_a_pattern_is_told_in_words(pattern: str) -> None:
    said = advice(f"Expected `str` matching regex {pattern!r}")

    assert said.startswith("send a text of ")
    assert "documented" not in said
    assert not set("^$[]*?") & set(said)


def test_two_operations_of_one_name_are_refused() -> None:
    operation = Operation(
        method="GET", path="/a", name="same", tag="x", summary="s", description="d", answers={200: Answer(str)}
    )
    other = Operation(
        method="GET", path="/b", name="same", tag="x", summary="s", description="d", answers={200: Answer(str)}
    )

    with pytest.raises(ValueError, match="same"):
        build_document([operation, other])


async def test_the_document_is_served_with_an_etag(world: OperatorWorld) -> None:
    first = await world.client.send("GET", "/openapi.json")
    again = await world.client.send("GET", "/openapi.json", headers=[("if-none-match", first.headers["etag"])])
    other = await world.client.send("GET", "/openapi.json", headers=[("if-none-match", '"other"')])

    assert (first.status, first.json) == (200, DOCUMENT)
    assert first.headers["content-type"] == "application/json"
    assert (again.status, again.body, other.status) == (304, b"", 200)
    assert again.headers["etag"] == first.headers["etag"]


async def test_the_page_loads_only_what_this_server_has(world: OperatorWorld) -> None:
    page = await world.client.send("GET", "/docs")
    text = page.body.decode()
    links = re.findall(r'(?:src|href)="([^"]+)"', text)

    assets = [await world.client.send("GET", link) for link in links if link.startswith("/docs/assets/")]

    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert len(assets) == len(links) - 1 == 5
    assert all(asset.status == 200 and len(asset.body) > 50 for asset in assets)
    assert all("immutable" in asset.headers["cache-control"] for asset in assets)
    assert [asset.headers["content-type"] for asset in assets] == [
        "image/png",
        "text/css; charset=utf-8",
        "text/css; charset=utf-8",
        "text/javascript; charset=utf-8",
        "text/javascript; charset=utf-8",
    ]
    assert "http:" not in text
    assert "https:" not in text


async def test_the_bare_address_says_what_answers_and_every_link_leads_somewhere(world: OperatorWorld) -> None:
    home = await world.client.send("GET", "/")
    replies = [await world.client.send("GET", link) for link in home.json["links"].values() if link != "/health"]

    assert (home.status, home.json["service"], home.json["version"]) == (200, "payflow", __version__)
    assert home.json["links"]["health"] == "/health"
    assert [reply.status for reply in replies] == [200, 200, 200]


async def test_the_pages_policy_allows_no_inline_script(world: OperatorWorld) -> None:
    page = await world.client.send("GET", "/docs")

    policy = page.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert re.findall(rb"<script(?![^>]*src=)", page.body) == []
    assert re.findall(rb"\son\w+=", page.body) == []


@pytest.mark.parametrize("name", ["ORIGIN.md", "..%2Fapp.py", "../app.py", "swagger-ui.LICENSE", "x"])
async def test_only_the_pages_parts_are_served(world: OperatorWorld, name: str) -> None:
    reply = await world.client.send("GET", f"/docs/assets/{name}")

    assert (reply.status, reply.json["error"]) == (404, "NOT_FOUND")


async def test_real_answers_of_customers_are_as_documented(world: OperatorWorld, contract: OpenApiContract) -> None:
    await world.customer()
    body = {"number": "ACC001", "customer_id": "cust_001", "currency": "USD", "opening_balance": "10.00"}
    await world.as_role(Role.OPERATOR, "POST", "/accounts", body)
    requests: list[tuple[str, str, Any, str | None]] = [
        ("POST", "/payment/confirm", a_payment_body(), "key-1"),
        ("POST", "/payment/confirm", a_payment_body(), None),
        ("POST", "/payment/confirm", {}, "key-2"),
        ("POST", "/payment/confirm", a_payment_body(customer_id="cust_002"), "key-3"),
        ("GET", "/payments", None, None),
        ("GET", "/payments?limit=0", None, None),
        ("GET", "/payments/txn_001", None, None),
        ("GET", "/payments/txn_999", None, None),
        ("GET", "/payments/txn_001/events", None, None),
        ("GET", "/accounts", None, None),
        ("GET", "/accounts/ACC001", None, None),
        ("GET", "/accounts/ACC001/entries", None, None),
        ("GET", "/accounts/ACC999", None, None),
        ("GET", "/users", None, None),
        ("GET", "/nothing", None, None),
        ("PUT", "/payments", None, None),
        ("GET", "/.well-known/jwks.json", None, None),
        ("GET", "/openapi.json", None, None),
        ("GET", "/docs", None, None),
        ("GET", "/", None, None),
        ("POST", "/auth/login", {"username": "customer", "password": "password123"}, None),
        ("POST", "/auth/login", {"username": "customer", "password": "wrong"}, None),
        ("POST", "/auth/refresh", {"refresh_token": "x"}, None),
        ("POST", "/auth/logout", None, None),
        ("GET", "/payments", None, None),
    ]

    for method, path, sent, key in requests:
        reply = await world.as_role(Role.CUSTOMER, method, path, sent, key=key)
        contract.check(method, path, status=reply.status, headers=reply.headers, body=reply.body)
