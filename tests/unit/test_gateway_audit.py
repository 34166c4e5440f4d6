"""Operators' routes to the audit trail, over the real services in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from payflow.contracts.gateway import Role
from tests.builders import new_id
from tests.fakes_audit import an_event
from tests.fakes_gateway_operators import OperatorWorld


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


async def test_the_audit_trail_is_searched_page_by_page_and_verified(world: OperatorWorld) -> None:
    payment_id = str(new_id())
    await world.record([an_event(subject=payment_id), an_event(type="customer.created"), an_event(subject=payment_id)])
    await world.audit.sign_head()

    first = (await world.as_role(Role.AUDITOR, "GET", f"/audit?subject={payment_id}&limit=1")).json
    cursor = first["next_cursor"]
    second = (await world.as_role(Role.AUDITOR, "GET", f"/audit?subject={payment_id}&limit=1&cursor={cursor}")).json
    by_type = (await world.as_role(Role.AUDITOR, "GET", "/audit?type=customer.created")).json
    verified = await world.as_role(Role.AUDITOR, "GET", "/audit/verification")

    assert [row["sequence"] for row in first["data"] + second["data"]] == [3, 1]
    assert [row["sequence"] for row in by_type["data"]] == [2]
    assert (verified.json["is_whole"], verified.json["rows"], verified.json["problems"]) == (True, 3, [])


async def test_a_verification_that_would_look_at_no_row_is_refused_instead_of_called_whole(
    world: OperatorWorld,
) -> None:
    empty = await world.as_role(Role.AUDITOR, "GET", "/audit/verification")
    await world.record([an_event(), an_event()])
    await world.audit.sign_head()

    last = await world.as_role(Role.AUDITOR, "GET", "/audit/verification?from_sequence=2")
    beyond = [
        await world.as_role(Role.AUDITOR, "GET", f"/audit/verification?from_sequence={sequence}")
        for sequence in (3, 4, 2**62)
    ]

    assert (empty.status, empty.json["is_whole"], empty.json["rows"]) == (200, True, 0)
    assert (last.status, last.json["is_whole"], last.json["rows"]) == (200, True, 1)
    assert [(reply.status, reply.json["error"], reply.json["field"]) for reply in beyond] == [
        (422, "VALIDATION_FAILED", "from_sequence")
    ] * 3
    assert "2" in beyond[0].json["detail"]


async def test_a_cut_tail_is_told_also_to_who_begins_beyond_it(world: OperatorWorld) -> None:
    await world.record([an_event(), an_event(), an_event()])
    await world.audit.sign_head()
    del world.audit_rows.records[1:]

    verified = await world.as_role(Role.AUDITOR, "GET", "/audit/verification?from_sequence=3")

    assert (verified.status, verified.json["is_whole"]) == (200, False)


async def test_an_altered_audit_row_is_told(world: OperatorWorld) -> None:
    await world.record([an_event(), an_event()])
    await world.audit.sign_head()
    world.audit_rows.records[0] = msgspec.structs.replace(world.audit_rows.records[0], type="payment.expired")

    verified = await world.as_role(Role.AUDITOR, "GET", "/audit/verification")

    assert verified.json["is_whole"] is False
    assert verified.json["problems"]


async def test_a_verification_is_recorded_once_per_key(world: OperatorWorld) -> None:
    await world.customer()
    body = {"state": "VERIFIED", "level": "FULL", "reason": "passport seen"}

    first = await world.as_role(Role.COMPLIANCE, "POST", "/kyc/cust_001", body, key="k1")
    again = await world.as_role(Role.COMPLIANCE, "POST", "/kyc/cust_001", body, key="k1")
    reused = await world.as_role(Role.COMPLIANCE, "POST", "/kyc/cust_001", {**body, "level": "BASIC"}, key="k1")
    other = await world.as_role(Role.OPERATOR, "POST", "/kyc/cust_001", {**body, "level": "BASIC"}, key="k1")
    keyless = await world.as_role(Role.OPERATOR, "POST", "/kyc/cust_001", body)

    assert (first.status, first.json["is_verified"], first.json["changes"][0]["recorded_by"]) == (
        200,
        True,
        "compliance",
    )
    assert again.json == first.json
    assert (reused.status, reused.json["error"]) == (409, "COMMAND_ID_REUSED")
    assert [change["version"] for change in other.json["changes"]] == [2, 1]
    assert [change["version"] for change in keyless.json["changes"]] == [3, 2, 1]
    assert (await world.as_role(Role.OPERATOR, "GET", "/kyc/cust_001")).json == keyless.json


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"level": "NONE"}, 422, "INVALID_VERIFICATION"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, 422, "INVALID_VERIFICATION"),
        ({"expires_at": "2030-01-01T00:00:00"}, 400, "MALFORMED_REQUEST"),
        ({"state": "MAYBE"}, 400, "MALFORMED_REQUEST"),
        ({"recorded_by": "me"}, 400, "MALFORMED_REQUEST"),
    ],
)
async def test_verifications_are_checked(world: OperatorWorld, changes: dict[str, Any], status: int, code: str) -> None:
    await world.customer()
    body = {"state": "VERIFIED", "level": "FULL", "reason": "passport seen", **changes}

    reply = await world.as_role(Role.COMPLIANCE, "POST", "/kyc/cust_001", body)

    assert (reply.status, reply.json["error"]) == (status, code)
