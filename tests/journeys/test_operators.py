"""The bank's own people: customers, users, accounts, verifications, lists, other banks and all payments."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from tests.support.api import Api, Client, Factory, new_key
from tests.support.other_bank import NORDBANK

Operators = dict[str, Client]


def new_id() -> str:
    return f"op-{secrets.token_hex(6)}"


async def a_customer(operators: Operators, *, name: str = "Edsger Example") -> str:
    customer_id = new_id()
    answer = await operators["operator"].post("/customers", {"customer_id": customer_id, "name": name, "country": "NL"})
    assert answer.status == 201, answer
    return customer_id


async def test_a_customer_made_by_operators_signs_in_and_pays(api: Api, make: Factory, operators: Operators) -> None:
    creditor = await make.customer()
    customer_id = await a_customer(operators)
    number, username = new_id(), new_id()

    verified = await operators["compliance"].post(
        f"/kyc/{customer_id}", {"state": "VERIFIED", "level": "FULL", "reason": "passport seen"}
    )
    opened = await operators["operator"].post(
        "/accounts", {"number": number, "customer_id": customer_id, "currency": "USD", "opening_balance": "250.00"}
    )
    user = await operators["admin"].post(
        "/users",
        {"username": username, "role": "customer", "password": "a long enough one", "customer_id": customer_id},
    )

    assert (verified.status, opened.status, user.status) == (200, 201, 201)
    client = await api.sign_in(username, "a long enough one")
    body = {
        "transaction_id": new_key(),
        "customer_id": customer_id,
        "amount": "50.00",
        "from_account": number,
        "to_account": creditor.account,
    }
    paid = await client.confirm(body, key=new_key())
    assert (paid.json["status"], paid.json["risk_level"]) == ("SUCCESS", "LOW")
    assert (await client.get(f"/accounts/{number}")).json["available"] == "200.00"
    assert (await operators["operator"].get(f"/accounts/{number}")).json["available"] == "200.00"


async def test_customers_are_made_in_bulk_with_an_answer_for_each(operators: Operators) -> None:
    known = await a_customer(operators, name="Known Person")
    fresh = new_id()
    items = [{"customer_id": fresh, "name": "Fresh Person"}, {"customer_id": known, "name": "Somebody Else"}]

    answer = await operators["operator"].post("/customers", items)

    assert answer.status == 200
    assert answer.json[0]["customer_id"] == fresh
    assert answer.json[1]["error"] == "ALREADY_EXISTS"


async def test_a_blocked_customer_cannot_pay_and_an_unblocked_one_can(make: Factory, operators: Operators) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    path = f"/customers/{debtor.customer_id}/state"

    blocked = await operators["operator"].post(path, {"state": "BLOCKED", "reason": "lost phone"})
    refused = await debtor.pay(creditor.account, "1.00")
    active = await operators["operator"].post(path, {"state": "ACTIVE", "reason": "found again"})
    paid = await debtor.pay(creditor.account, "1.00")

    assert (blocked.json["state"], active.json["state"]) == ("BLOCKED", "ACTIVE")
    assert (refused.status, refused.error) == (422, "ACCOUNT_BLOCKED")
    assert paid.status == 200


@pytest.mark.parametrize(
    ("state", "pays", "receives"),
    [
        ("BLOCKED", "ACCOUNT_BLOCKED", "ACCOUNT_BLOCKED"),
        ("BLOCKED_DEBIT", "ACCOUNT_BLOCKED", None),
        ("BLOCKED_CREDIT", None, "ACCOUNT_BLOCKED"),
    ],
)
async def test_a_blocked_account_does_not_do_what_it_is_blocked_for(
    make: Factory, operators: Operators, state: str, pays: str | None, receives: str | None
) -> None:
    blocked, other = await make.customer(), await make.customer()
    answer = await operators["operator"].post(f"/accounts/{blocked.account}/state", {"state": state, "reason": "test"})
    assert answer.status == 200, answer

    out = await blocked.pay(other.account, "1.00")
    into = await other.pay(blocked.account, "1.00")

    assert (out.error, into.error) == (pays, receives)


async def test_a_closed_account_takes_part_in_nothing(make: Factory, operators: Operators) -> None:
    closed, other = await make.customer(USD="0"), await make.customer()
    path = f"/accounts/{closed.account}/state"
    answer = await operators["operator"].post(path, {"state": "CLOSED", "reason": "moved away"})
    assert answer.status == 200, answer

    into = await other.pay(closed.account, "1.00")

    assert (into.status, into.error) == (422, "ACCOUNT_CLOSED")


async def test_a_disabled_user_is_signed_out_and_cannot_sign_in(api: Api, make: Factory, operators: Operators) -> None:
    customer = await make.customer()

    disabled = await operators["admin"].post(f"/users/{customer.username}/state", {"state": "DISABLED"})

    assert disabled.status == 200
    assert (await customer.client.get("/accounts")).error == "TOKEN_REVOKED"
    assert (await api.login(customer.username)).error == "INVALID_CREDENTIALS"


async def test_verifications_keep_their_history(make: Factory, operators: Operators) -> None:
    customer = await make.customer()
    path = f"/kyc/{customer.customer_id}"

    await operators["compliance"].post(path, {"state": "REJECTED", "level": "NONE", "reason": "forged"})
    shown = await operators["compliance"].get(path)

    assert shown.json["is_verified"] is False
    assert [change["state"] for change in shown.json["changes"]] == ["REJECTED", "VERIFIED"]
    creditor = await make.customer()
    assert (await customer.pay(creditor.account, "1.00")).json["risk_level"] == "MEDIUM"


async def test_a_name_is_screened_as_payments_are(operators: Operators) -> None:
    listed = await operators["compliance"].post("/sanctions/screen", {"name": "Rafael CARO-QUINTERO"})
    unlisted = await operators["compliance"].post("/sanctions/screen", {"name": "Ada Testperson"})
    lists = await operators["compliance"].get("/sanctions/lists")

    assert listed.json["outcome"] == "POSSIBLE_MATCH"
    assert unlisted.json["outcome"] == "CLEAR"
    assert lists.json["entries"] > 10_000


async def test_an_operator_sees_instructions_to_other_banks_and_asks_again(make: Factory, operators: Operators) -> None:
    customer = await make.customer(EUR="100.00")
    paid = await customer.pay(NORDBANK, "10.00")
    payment = await customer.payment(paid.json["transaction_id"])

    page = await operators["operator"].get("/partner-bank/instructions?direction=OUTGOING&limit=200")
    asked = await operators["operator"].post(f"/partner-bank/instructions/{payment['payment_id']}/enquiry")

    (instruction,) = [row for row in page.json["data"] if row["payment_id"] == payment["payment_id"]]
    assert (instruction["status"], instruction["amount"]) == ("ACCEPTED", "10.00")
    assert asked.json["status"] == "ACCEPTED"


async def test_all_payments_with_history_and_risk_are_seen_by_the_bank_s_people(
    make: Factory, operators: Operators
) -> None:
    debtor, creditor = await make.customer(), await make.customer()
    paid = await debtor.pay(creditor.account, "5.00")
    payment = await debtor.payment(paid.json["transaction_id"])

    for role in ("operator", "compliance", "auditor", "admin"):
        page = await operators[role].get(f"/operator/payments?customer_id={debtor.customer_id}")
        detail = await operators[role].get(f"/operator/payments/{payment['payment_id']}")
        assert [row["payment_id"] for row in page.json["data"]] == [payment["payment_id"]]
        assert [step["target"] for step in detail.json["history"]] == ["RECEIVED", "APPROVED", "COMPLETED"]
        assert detail.json["risk"]["level"] == "LOW"


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/customers", {"customer_id": "x", "name": "x"}),
        ("POST", "/accounts", {"number": "x", "customer_id": "x", "currency": "USD"}),
        ("POST", "/users", {"username": "x", "role": "admin", "password": "long enough"}),
        ("GET", "/users", None),
        ("GET", "/customers/cust_001", None),
        ("POST", "/customers/cust_001/state", {"state": "BLOCKED", "reason": "x"}),
        ("POST", "/accounts/ACC001/state", {"state": "BLOCKED", "reason": "x"}),
        ("GET", "/reviews", None),
        ("GET", "/audit", None),
        ("GET", "/kyc/cust_001", None),
        ("POST", "/kyc/cust_001", {"state": "VERIFIED", "level": "FULL", "reason": "x"}),
        ("POST", "/sanctions/screen", {"name": "x"}),
        ("GET", "/partner-bank/instructions", None),
        ("POST", "/partner-bank/instructions/01a20b9a-0000-7000-8000-000000000000/taken-back", {"reference": "x"}),
        ("GET", "/operator/payments", None),
    ],
)
async def test_customers_have_no_business_on_operators_routes(
    make: Factory, api: Api, method: str, path: str, body: Any
) -> None:
    customer = await make.customer()

    refused = await api.send(method, path, token=customer.client.token, json_body=body)
    stranger = await api.send(method, path, json_body=body)

    assert (refused.status, refused.error) == (403, "FORBIDDEN")
    assert (stranger.status, stranger.error) == (401, "ACCESS_TOKEN_REQUIRED")


NOBODY = "01a20b9a-0000-7000-8000-000000000000"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/customers/nobody", None, 404, "CUSTOMER_NOT_FOUND"),
        ("POST", "/customers/nobody/state", {"state": "BLOCKED", "reason": "x"}, 404, "CUSTOMER_NOT_FOUND"),
        ("POST", "/customers", {"customer_id": "cust_001", "name": "Another Name"}, 409, "ALREADY_EXISTS"),
        ("POST", "/customers", {"customer_id": "x"}, 400, "MISSING_REQUIRED_FIELDS"),
        ("POST", "/customers", [], 400, "MALFORMED_REQUEST"),
        ("GET", "/accounts/nobody", None, 404, "NOT_FOUND"),
        ("POST", "/accounts/nobody/state", {"state": "OPEN", "reason": "x"}, 404, "NOT_FOUND"),
        ("POST", "/accounts", {"number": "n", "customer_id": "nobody", "currency": "USD"}, 404, "CUSTOMER_NOT_FOUND"),
        ("POST", "/accounts", {"number": "n", "customer_id": "cust_001", "currency": "ZZZ"}, 422, "UNKNOWN_CURRENCY"),
        (
            "POST",
            "/accounts",
            {"number": "n", "customer_id": "cust_001", "currency": "JPY", "opening_balance": "1.5"},
            422,
            "INVALID_AMOUNT",
        ),
        (
            "POST",
            "/accounts",
            {"number": "ACC001", "customer_id": "cust_002", "currency": "USD"},
            409,
            "ALREADY_EXISTS",
        ),
        ("POST", "/users", {"username": "demo", "role": "auditor", "password": "long enough"}, 409, "USER_EXISTS"),
        ("POST", "/users", {"username": "n", "role": "customer", "password": "long enough"}, 422, "VALIDATION_FAILED"),
        ("POST", "/users/nobody/state", {"state": "DISABLED"}, 404, "USER_NOT_FOUND"),
        ("POST", "/users/admin/state", {"state": "DISABLED"}, 422, "VALIDATION_FAILED"),
        ("GET", f"/reviews/{NOBODY}", None, 404, "REVIEW_NOT_FOUND"),
        ("GET", "/kyc/nobody", None, 404, "VERIFICATION_NOT_FOUND"),
        (
            "POST",
            "/kyc/cust_001",
            {"state": "VERIFIED", "level": "NONE", "reason": "x"},
            422,
            "INVALID_VERIFICATION",
        ),
        ("POST", f"/partner-bank/instructions/{NOBODY}/enquiry", None, 404, "INSTRUCTION_NOT_FOUND"),
        ("GET", f"/operator/payments/{NOBODY}", None, 404, "PAYMENT_NOT_FOUND"),
    ],
)
async def test_what_cannot_be_done_is_told_by_its_own_code(
    operators: Operators, method: str, path: str, body: Any, status: int, code: str
) -> None:
    admin = operators["admin"]

    answer = await admin.api.send(method, path, token=admin.token, json_body=body)

    assert (answer.status, answer.error) == (status, code)
