"""Operators' routes as clients see them, over the real services in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from payflow.contracts.confirm import PaymentState
from payflow.contracts.gateway import Role
from tests.builders import new_id
from tests.fakes_audit import an_event
from tests.fakes_gateway import a_payment, a_payment_body
from tests.fakes_gateway_operators import LISTED_NAME, OperatorWorld

ADA = {"customer_id": "cust_100", "name": "Ada Lovelace", "country": "GB", "email": "ada@example.org"}

UNKNOWN_ID = "019ca1d4-9e44-7d10-9a55-7f0e2f0c9fff"


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


async def test_a_review_of_incoming_money_has_no_payment_of_ours(world: OperatorWorld) -> None:
    payment, review_id = await world.review()
    world.payments.payments.clear()

    seen = await world.as_role(Role.COMPLIANCE, "GET", f"/reviews/{review_id}")

    assert (seen.status, seen.json["payment"]) == (200, None)
    assert seen.json["review"]["payment_id"] == str(payment.payment_id)


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
