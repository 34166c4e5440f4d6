"""Operators' routes about payments, names and instructions, and what holds for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from payflow.contracts.confirm import PaymentState
from payflow.contracts.gateway import Role
from payflow.contracts.partner_bank import EndReturn, OtherReference
from tests.builders import NOON
from tests.fakes_gateway import a_payment
from tests.fakes_gateway_operators import LISTED_NAME, OperatorWorld

UNKNOWN_ID = "019ca1d4-9e44-7d10-9a55-7f0e2f0c9fff"


@pytest.fixture
def world(tmp_path: Path) -> OperatorWorld:
    return OperatorWorld(tmp_path / "keys")


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/customers/nobody", None, "CUSTOMER_NOT_FOUND"),
        ("/customers/nobody/accounts", None, "CUSTOMER_NOT_FOUND"),
        ("/customers/nobody/state", {"state": "BLOCKED", "reason": "x"}, "CUSTOMER_NOT_FOUND"),
        ("/accounts/none", None, "NOT_FOUND"),
        ("/accounts/none/entries", None, "NOT_FOUND"),
        ("/accounts/none/state", {"state": "BLOCKED", "reason": "x"}, "NOT_FOUND"),
        ("/users/nobody/state", {"state": "DISABLED"}, "USER_NOT_FOUND"),
        (f"/reviews/{UNKNOWN_ID}", None, "REVIEW_NOT_FOUND"),
        (f"/reviews/{UNKNOWN_ID}/decision", {"decision": "clear", "comment": "x"}, "REVIEW_NOT_FOUND"),
        ("/kyc/nobody", None, "VERIFICATION_NOT_FOUND"),
        ("/kyc/nobody", {"state": "PENDING", "level": "NONE", "reason": "x"}, "CUSTOMER_NOT_FOUND"),
        (f"/partner-bank/instructions/{UNKNOWN_ID}/enquiry", {}, "INSTRUCTION_NOT_FOUND"),
        (f"/partner-bank/instructions/{UNKNOWN_ID}/taken-back", {"reference": "x"}, "INSTRUCTION_NOT_FOUND"),
        (f"/operator/payments/{UNKNOWN_ID}", None, "PAYMENT_NOT_FOUND"),
        ("/reviews/1", None, "NOT_FOUND"),
        ("/operator/payments/txn_001", None, "NOT_FOUND"),
    ],
)
async def test_what_is_not_there_is_404(world: OperatorWorld, path: str, body: Any, code: str) -> None:
    reply = await world.as_role(Role.ADMIN, "GET" if body is None else "POST", path, body)

    assert (reply.status, reply.json["error"]) == (404, code)


@pytest.mark.parametrize("path", ["/customers/%00", "/kyc/%0A", "/audit?subject=%00", "/users?cursor=%00"])
async def test_control_characters_in_an_address_are_refused(world: OperatorWorld, path: str) -> None:
    plain = path.replace("%00", "\0").replace("%0A", "\n") if "?" not in path else path

    reply = await world.as_role(Role.ADMIN, "GET", plain)

    assert (reply.status, reply.json["error"]) == (400, "MALFORMED_REQUEST")


async def test_a_name_is_screened_against_the_loaded_lists(world: OperatorWorld) -> None:
    listed = await world.as_role(Role.COMPLIANCE, "POST", "/sanctions/screen", {"name": LISTED_NAME, "country": "MX"})
    clear = await world.as_role(Role.COMPLIANCE, "POST", "/sanctions/screen", {"name": "Ada Lovelace"})
    lists = await world.as_role(Role.COMPLIANCE, "GET", "/sanctions/lists")

    assert (listed.json["outcome"], clear.json["outcome"]) == ("POSSIBLE_MATCH", "CLEAR")
    assert listed.json["matches"][0]["score"] >= 90
    assert clear.json["matches"] == []
    assert lists.json["entries"] > 10_000
    assert lists.json["list_version"] == clear.json["list_version"]


async def test_instructions_are_listed_by_direction_and_status_and_asked_about(world: OperatorWorld) -> None:
    unknown = world.bank.add()
    world.bank.add(direction="INCOMING", status="CREDITED")

    listed = await world.as_role(Role.OPERATOR, "GET", "/partner-bank/instructions?direction=OUTGOING&status=UNKNOWN")
    asked = await world.as_role(Role.OPERATOR, "POST", f"/partner-bank/instructions/{unknown.payment_id}/enquiry")
    after = await world.as_role(Role.OPERATOR, "GET", "/partner-bank/instructions?limit=1")

    assert [(one["payment_id"], one["amount"]) for one in listed.json["data"]] == [(str(unknown.payment_id), "1234.56")]
    assert (asked.status, asked.json["status"]) == (200, "ACCEPTED")
    assert after.json["next_cursor"] == after.json["data"][0]["payment_id"]
    wrong = await world.as_role(Role.OPERATOR, "GET", "/partner-bank/instructions?status=MAYBE")
    assert (wrong.status, wrong.json["error"]) == (400, "MALFORMED_REQUEST")


async def test_an_operator_ends_a_return_in_their_own_name_and_with_a_reference(world: OperatorWorld) -> None:
    returning = world.bank.add(direction="INCOMING", status="RETURNING")
    path = f"/partner-bank/instructions/{returning.payment_id}/taken-back"

    ended = await world.as_role(Role.OPERATOR, "POST", path, {"reference": "NB booking 4711"})
    unproven = await world.as_role(Role.OPERATOR, "POST", path, {})
    not_theirs = await world.as_role(Role.AUDITOR, "POST", path, {"reference": "NB booking 4711"})

    assert (ended.status, ended.json["status"], ended.json["state"]) == (200, "ACCEPTED", "ENDED")
    assert [(one.payment_id, one.reference) for one in world.bank.ended] == [(returning.payment_id, "NB booking 4711")]
    assert world.bank.ended[0].ended_by
    assert (unproven.status, not_theirs.status) == (400, 403)


async def test_above_the_limit_an_operators_word_waits_for_a_second_one_and_can_be_withdrawn(
    world: OperatorWorld,
) -> None:
    returning = world.bank.add(direction="INCOMING", status="RETURNING")
    path = f"/partner-bank/instructions/{returning.payment_id}/taken-back"
    world.bank.first_word = EndReturn(payment_id=returning.payment_id, reference="NB 4711", ended_by="olga")

    waiting = await world.as_role(Role.OPERATOR, "POST", path, {"reference": "NB 4711"})
    withdrawn = await world.as_role(Role.OPERATOR, "DELETE", path)
    not_theirs = await world.as_role(Role.AUDITOR, "DELETE", path)

    assert (waiting.status, waiting.json["state"], waiting.json["status"]) == (202, "AWAITING_APPROVAL", "UNKNOWN")
    assert (waiting.json["requested_by"], waiting.json["reference"]) == ("olga", "NB 4711")
    assert waiting.json["expires_at"]
    assert (withdrawn.status, withdrawn.json["state"], withdrawn.json["requested_by"]) == (200, "RETURNING", None)
    assert [one.payment_id for one in world.bank.withdrawn] == [returning.payment_id]
    assert world.bank.withdrawn[0].withdrawn_by
    assert not_theirs.status == 403


async def test_a_second_word_about_something_else_says_what_it_is_about(world: OperatorWorld) -> None:
    returning = world.bank.add(direction="INCOMING", status="RETURNING")
    refusal = world.bank.refusal = OtherReference("olga named another.")

    path = f"/partner-bank/instructions/{returning.payment_id}/taken-back"
    answer = await world.as_role(Role.OPERATOR, "POST", path, {"reference": "NB 4711"})

    assert (answer.status, answer.json["error"], answer.json["detail"]) == (409, refusal.code, refusal.detail)


async def test_a_return_that_waits_for_a_second_person_shows_whose_word_and_until_when(world: OperatorWorld) -> None:
    asked = {"end_requested_by": "olga", "end_reference": "NB 4711", "end_expires_at": NOON, "next_attempt_at": NOON}
    world.bank.add(direction="RETURN", **asked)
    world.bank.add(direction="RETURN", status="ACCEPTED", **{**asked, "next_attempt_at": None})

    listed = await world.as_role(Role.OPERATOR, "GET", "/partner-bank/instructions?direction=RETURN")

    ended, waiting = sorted(listed.json["data"], key=lambda one: str(one["status"]))
    assert waiting["taken_back"]["requested_by"] == "olga"
    assert waiting["taken_back"]["reference"] == "NB 4711"
    assert waiting["taken_back"]["expires_at"] == waiting["next_attempt_at"]
    assert (ended["taken_back"], ended["next_attempt_at"]) == (None, None)


async def test_everybodys_payments_are_listed_and_looked_at_with_history_and_risk(world: OperatorWorld) -> None:
    mine = world.payments.add(a_payment())
    other = world.payments.add(a_payment(customer_id="cust_002", state=PaymentState.REJECTED))
    await world.assess(mine)

    everybody = await world.as_role(Role.OPERATOR, "GET", "/operator/payments")
    one_customer = await world.as_role(Role.AUDITOR, "GET", "/operator/payments?customer_id=cust_002")
    by_state = await world.as_role(Role.COMPLIANCE, "GET", "/operator/payments?state=COMPLETED")
    assessed = await world.as_role(Role.OPERATOR, "GET", f"/operator/payments/{mine.payment_id}")
    unassessed = await world.as_role(Role.OPERATOR, "GET", f"/operator/payments/{other.payment_id}")

    ids = [payment["payment_id"] for payment in everybody.json["data"]]
    assert ids == sorted([str(other.payment_id), str(mine.payment_id)], reverse=True)
    assert [payment["customer_id"] for payment in one_customer.json["data"]] == ["cust_002"]
    assert [payment["payment_id"] for payment in by_state.json["data"]] == [str(mine.payment_id)]
    assert [step["target"] for step in assessed.json["history"]] == ["RECEIVED", "COMPLETED"]
    assert (assessed.json["risk"]["level"], assessed.json["risk"]["payments_last_24h"]) == ("LOW", 1)
    assert unassessed.json["risk"] is None


async def test_bodies_are_refused_by_type_and_by_doubled_fields(world: OperatorWorld) -> None:
    text = await world.as_role(Role.OPERATOR, "POST", "/customers", b"{}", headers=[("content-type", "text/plain")])
    doubled = await world.as_role(
        Role.COMPLIANCE, "POST", "/sanctions/screen", b'{"name": "Ada", "name": "Rafael Caro Quintero"}'
    )
    escaped = await world.as_role(Role.COMPLIANCE, "POST", "/sanctions/screen", b'{"name": "Ada", "n\\u0061me": "X"}')

    assert (text.status, text.json["error"]) == (415, "UNSUPPORTED_MEDIA_TYPE")
    assert (doubled.status, doubled.json["error"]) == (400, "MALFORMED_REQUEST")
    assert (escaped.status, escaped.json["error"]) == (400, "MALFORMED_REQUEST")
