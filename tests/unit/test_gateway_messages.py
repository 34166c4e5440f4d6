"""Customers' preferences and devices, and vendors' callbacks, through the public routes; every answer is documented."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from payflow.contracts.gateway import Role
from payflow_dev.vendors.twilio import sign
from tests.builders import new_id
from tests.fakes_gateway import Reply
from tests.fakes_gateway_operators import OperatorWorld

PUBLIC_URL = "https://pay.example.org"
FORM = ("content-type", "application/x-www-form-urlencoded")


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


async def as_customer(world: OperatorWorld, method: str, path: str, body: Any = None) -> Reply:
    return await world.as_role(Role.CUSTOMER, method, path, body)


async def test_a_customer_sets_and_sees_their_preferences(world: OperatorWorld) -> None:
    before = await as_customer(world, "GET", "/preferences")
    changed = await as_customer(world, "PUT", "/preferences", {"language": "de", "channels": ["email", "sms"]})
    after = await as_customer(world, "GET", "/preferences")

    assert before.json == {"language": "en", "channels": []}
    assert changed.json == after.json == {"language": "de", "channels": ["email", "sms"]}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        ({"channels": ["fax"]}, 422, "UNKNOWN_PREFERENCE"),
        ({"channels": ["sms", "sms"]}, 422, "UNKNOWN_PREFERENCE"),
        ({"language": "xx"}, 422, "UNKNOWN_PREFERENCE"),
        ({"language": ""}, 400, "MALFORMED_REQUEST"),
        ({"customer_id": "cust_002"}, 400, "MALFORMED_REQUEST"),
        ({"channels": "sms"}, 400, "MALFORMED_REQUEST"),
    ],
)
async def test_preferences_that_nobody_could_keep_are_refused(
    world: OperatorWorld, body: dict[str, Any], status: int, error: str
) -> None:
    reply = await as_customer(world, "PUT", "/preferences", body)

    assert (reply.status, reply.json["error"]) == (status, error)
    assert (await as_customer(world, "GET", "/preferences")).json == {"language": "en", "channels": []}


async def test_a_device_is_registered_listed_and_removed_and_its_token_never_told(world: OperatorWorld) -> None:
    token = "a-token-of-firebase"
    registered = await as_customer(world, "POST", "/devices", {"token": token, "platform": "android"})
    again = await as_customer(world, "POST", "/devices", {"token": token, "platform": "android"})
    listed = await as_customer(world, "GET", "/devices")
    removed = await as_customer(world, "DELETE", f"/devices/{registered.json['device_id']}")
    gone = await as_customer(world, "DELETE", f"/devices/{registered.json['device_id']}")

    assert (registered.status, again.status) == (201, 201)
    assert listed.json["data"] == [registered.json] == [again.json]
    assert token not in registered.body.decode() + listed.body.decode()
    assert (removed.status, removed.body) == (204, b"")
    assert (gone.status, gone.json["error"]) == (404, "DEVICE_NOT_FOUND")
    assert (await as_customer(world, "GET", "/devices")).json["data"] == []


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({"platform": "ios"}, "MISSING_REQUIRED_FIELDS"),
        ({"token": "a-token-of-firebase"}, "MISSING_REQUIRED_FIELDS"),
        ({"token": "a-token-of-firebase", "platform": "fax"}, "MALFORMED_REQUEST"),
        ({"token": "short", "platform": "ios"}, "MALFORMED_REQUEST"),
        ({"token": "with a blank", "platform": "ios"}, "MALFORMED_REQUEST"),
        ({"token": "x" * 1025, "platform": "ios"}, "MALFORMED_REQUEST"),
    ],
)
async def test_what_is_no_device_is_not_registered(world: OperatorWorld, body: dict[str, Any], error: str) -> None:
    reply = await as_customer(world, "POST", "/devices", body)

    assert (reply.status, reply.json["error"]) == (400, error)


async def call_back(world: OperatorWorld, *, query: str, form: dict[str, str], **headers: str) -> Reply:
    sent = [FORM, *((name.replace("_", "-"), value) for name, value in headers.items())]
    path = f"/callbacks/twilio?{query}"
    return await world.client.send("POST", path, body=urlencode(form).encode(), headers=sent)


async def test_a_signed_callback_needs_no_token_and_an_unsigned_one_is_refused(world: OperatorWorld) -> None:
    query = urlencode({"message_id": str(new_id())})
    form = {"AccountSid": "AC1", "MessageSid": "SM1", "MessageStatus": "sent", "To": "+31205550100"}
    signature = sign(f"{PUBLIC_URL}/callbacks/twilio?{query}", form, auth_token="token")

    signed = await call_back(world, query=query, form=form, x_twilio_signature=signature)
    unsigned = await call_back(world, query=query, form=form)
    unreadable = {**form, "AccountSid": "AC2"}
    signature = sign(f"{PUBLIC_URL}/callbacks/twilio?{query}", unreadable, auth_token="token")
    foreign = await call_back(world, query=query, form=unreadable, x_twilio_signature=signature)

    assert (signed.status, signed.body) == (204, b"")
    assert (unsigned.status, unsigned.json["error"]) == (403, "CALLBACK_NOT_SIGNED")
    assert (foreign.status, foreign.json["error"]) == (422, "UNREADABLE_CALLBACK")


@pytest.mark.parametrize(
    ("method", "path", "body", "media_type", "status", "error"),
    [
        ("POST", "/callbacks/sendgrid", b"[]", "application/json;charset=utf-8", 404, "VENDOR_NOT_IN_USE"),
        ("POST", "/callbacks/sendgrid", b"[]", "text/plain", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/callbacks/twilio", b"{}", "application/json", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("POST", "/callbacks/twilio?other=1", b"", FORM[1], 400, "MALFORMED_REQUEST"),
        ("POST", "/callbacks/twilio", b"a" * (1024 * 1024 + 1), FORM[1], 413, "PAYLOAD_TOO_LARGE"),
        ("GET", "/callbacks/twilio", None, FORM[1], 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/callbacks/else", b"", FORM[1], 404, "NOT_FOUND"),
    ],
)
async def test_what_is_no_callback_is_refused(
    world: OperatorWorld, method: str, path: str, body: bytes | None, media_type: str, status: int, error: str
) -> None:
    reply = await world.client.send(method, path, body=body, headers=[("content-type", media_type)])

    assert (reply.status, reply.json["error"]) == (status, error)


async def test_a_long_callback_is_read(world: OperatorWorld) -> None:
    # SendGrid gathers events up to 768 KB; other routes read 64 KB.
    body = b"[" + b" " * 800_000 + b"]"

    reply = await world.client.send(
        "POST", "/callbacks/sendgrid", body=body, headers=[("content-type", "application/json")]
    )

    assert (reply.status, reply.json["error"]) == (404, "VENDOR_NOT_IN_USE")
