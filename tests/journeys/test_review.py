"""Possible sanctions matches: held, reviewed by an officer, cleared or blocked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api import Answer, Client, Customer, Factory, eventually, new_key

LISTED = "Rafael Caro Quintero"
Operators = dict[str, Client]


async def held_payment(
    make: Factory, *, amount: str = "100.00", **debtor: Any
) -> tuple[Customer, Customer, dict[str, Any], str]:
    """A payment UNDER_REVIEW: debtor, creditor, body and key."""
    payer = await make.customer(name=LISTED, country="MX", **({"USD": "50000.00"} | debtor))
    payee = await make.customer()
    body, key = payer.body(payee.account, amount), new_key()
    answer = await payer.client.confirm(body, key=key)
    assert (answer.status, answer.json["status"]) == (202, "PENDING"), answer
    return payer, payee, body, key


async def review_of(operators: Operators, payer: Customer) -> dict[str, Any]:
    """The open case of a customer's payment."""

    async def look() -> dict[str, Any] | None:
        page = await operators["compliance"].get("/reviews?state=OPEN&limit=200")
        assert page.status == 200, page
        return next((row for row in page.json["data"] if row["customer_id"] == payer.customer_id), None)

    return dict(await eventually(look))


async def decide(client: Client, review_id: str, decision: str) -> Answer:
    body = {"decision": decision, "comment": "looked at the passport"}
    return await client.post(f"/reviews/{review_id}/decision", body)


async def status_after(payer: Customer, transaction_id: str) -> dict[str, Any]:
    async def look() -> dict[str, Any] | None:
        payment = await payer.payment(transaction_id)
        return payment if payment["state"] != "UNDER_REVIEW" else None

    return dict(await eventually(look))


async def test_a_payment_of_a_listed_name_waits_with_its_money_held(make: Factory, operators: Operators) -> None:
    payer, _, body, key = await held_payment(make)

    again = await payer.client.confirm(body, key=key)

    assert again.status == 202
    assert await payer.balances() == ("50000.00", "100.00", "49900.00")
    assert LISTED not in again.body.decode()
    review = await review_of(operators, payer)
    assert review["matches"][0]["score"]
    assert review["decided_by"] is None


async def test_a_cleared_payment_is_paid_and_its_key_then_tells_so(make: Factory, operators: Operators) -> None:
    payer, payee, body, key = await held_payment(make)
    review = await review_of(operators, payer)

    decided = await decide(operators["compliance"], review["review_id"], "clear")

    assert (decided.status, decided.json["state"], decided.json["decided_by"]) == (200, "CLEARED", "compliance")
    payment = await status_after(payer, body["transaction_id"])
    assert payment["status"] == "SUCCESS"
    told = await payer.client.confirm(body, key=key)
    assert (told.status, told.json["status"]) == (200, "SUCCESS")
    assert await payer.balances() == ("49900.00", "0.00", "49900.00")
    assert await payee.balances() == ("1100.00", "0.00", "1100.00")


async def test_a_blocked_payment_is_refused_without_a_word_about_lists(make: Factory, operators: Operators) -> None:
    payer, payee, body, key = await held_payment(make)
    review = await review_of(operators, payer)

    decided = await decide(operators["compliance"], review["review_id"], "block")

    assert (decided.status, decided.json["state"]) == (200, "BLOCKED")
    await status_after(payer, body["transaction_id"])
    told = await payer.client.confirm(body, key=key)
    assert (told.status, told.error) == (422, "PAYMENT_REFUSED")
    assert not any(word in told.body.lower() for word in (b"sanction", b"ofac", b"sdn", b"list"))
    assert await payer.balances() == ("50000.00", "0.00", "50000.00")
    assert await payee.balances() == ("1000.00", "0.00", "1000.00")


async def test_a_cleared_payment_still_needs_the_password_that_its_amount_asks_for(
    make: Factory, operators: Operators
) -> None:
    payer, _, body, key = await held_payment(make, amount="15000.00")
    review = await review_of(operators, payer)

    await decide(operators["compliance"], review["review_id"], "clear")

    payment = await status_after(payer, body["transaction_id"])
    assert payment["status"] == "OTP_REQUIRED"
    assert await payer.balances() == ("50000.00", "15000.00", "35000.00")
    code = await payer.otp(body["transaction_id"])
    paid = await payer.client.confirm(body | {"otp": code}, key=key)
    assert paid.json["status"] == "SUCCESS"
    assert await payer.balances() == ("35000.00", "0.00", "35000.00")


async def test_a_listed_creditor_holds_the_payment_as_a_listed_debtor_does(make: Factory) -> None:
    payer, payee = await make.customer(), await make.customer(name=LISTED, country="MX")

    to_owner = await payer.pay(payee.account, "10.00")
    to_name = await payer.pay((await make.customer()).account, "10.00", creditor={"name": LISTED})

    assert (to_owner.status, to_name.status) == (202, 202)


async def test_a_payment_under_review_can_be_cancelled_and_its_money_is_free_again(
    make: Factory, operators: Operators
) -> None:
    payer, _, body, key = await held_payment(make)

    cancelled = await payer.client.post(f"/payments/{body['transaction_id']}/cancel")

    assert (cancelled.status, cancelled.json["status"]) == (200, "CANCELLED")
    assert await payer.balances() == ("50000.00", "0.00", "50000.00")
    told = await payer.client.confirm(body, key=key)
    assert (told.status, told.error) == (422, "PAYMENT_CANCELLED")
    review = await review_of(operators, payer)
    await decide(operators["compliance"], review["review_id"], "clear")
    assert (await payer.payment(body["transaction_id"]))["status"] == "CANCELLED"
    assert await payer.balances() == ("50000.00", "0.00", "50000.00")


async def test_a_case_is_decided_once(make: Factory, operators: Operators) -> None:
    payer, *_ = await held_payment(make)
    review = await review_of(operators, payer)
    await decide(operators["compliance"], review["review_id"], "block")

    same = await decide(operators["compliance"], review["review_id"], "block")
    other = await decide(operators["admin"], review["review_id"], "clear")

    assert same.status == 200
    assert (other.status, other.error) == (409, "REVIEW_ALREADY_DECIDED")


async def test_an_officer_who_is_the_payer_does_not_decide(make: Factory, operators: Operators) -> None:
    payer, *_ = await held_payment(make)
    review = await review_of(operators, payer)
    officer = {"username": f"officer-{payer.username}", "role": "compliance", "password": "a long enough one"}
    made = await operators["admin"].post("/users", {**officer, "customer_id": payer.customer_id})
    assert made.status == 201, made

    answer = await decide(
        await payer.client.api.sign_in(officer["username"], officer["password"]), review["review_id"], "clear"
    )

    assert (answer.status, answer.error) == (403, "REVIEW_OWN_PAYMENT")
    assert (await review_of(operators, payer))["state"] == "OPEN"


@pytest.mark.parametrize("role", ["operator", "auditor"])
async def test_only_compliance_officers_see_and_decide_cases(make: Factory, operators: Operators, role: str) -> None:
    payer, *_ = await held_payment(make)
    review = await review_of(operators, payer)

    answers = [
        await operators[role].get("/reviews"),
        await decide(operators[role], review["review_id"], "clear"),
        await payer.client.get("/reviews"),
        await decide(payer.client, review["review_id"], "clear"),
    ]

    assert {(answer.status, answer.error) for answer in answers} == {(403, "FORBIDDEN")}
    assert (await review_of(operators, payer))["state"] == "OPEN"


@pytest.mark.parametrize(
    "body", [{}, {"decision": "clear"}, {"decision": "maybe", "comment": "x"}, {"decision": "clear", "comment": ""}]
)
async def test_a_decision_that_cannot_be_read_decides_nothing(
    make: Factory, operators: Operators, body: dict[str, str]
) -> None:
    payer, *_ = await held_payment(make)
    review = await review_of(operators, payer)

    answer = await operators["compliance"].post(f"/reviews/{review['review_id']}/decision", body)

    assert answer.status == 400
    assert (await review_of(operators, payer))["state"] == "OPEN"
