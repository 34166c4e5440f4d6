"""Risk and the one-time password: who is asked for one, and what a right and a wrong one do."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest

from tests.support.api import Customer, Factory, new_key, refusal
from tests.support.system import System

HIGH = "15000.00"


async def ask(debtor: Customer, creditor: Customer, amount: str = HIGH) -> tuple[dict[str, object], str]:
    """Begin a payment that asks for a one-time password; its body and key."""
    body, key = debtor.body(creditor.account, amount), new_key()
    answer = await debtor.client.confirm(body, key=key)
    assert answer.json["status"] == "OTP_REQUIRED", answer
    return body, key


async def rich(make: Factory) -> Customer:
    return await make.customer(USD="100000.00")


def wrong(code: str) -> str:
    return f"{(int(code) + 1) % 1_000_000:06d}"


async def test_a_large_payment_asks_for_a_password_and_completes_under_the_same_key(
    make: Factory, system: System
) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = debtor.body(creditor.account, HIGH), new_key()

    asked = await debtor.client.confirm(body, key=key)
    shown = await asyncio.to_thread(system.run, "otp", str(body["transaction_id"]))
    paid = await debtor.client.confirm(body | {"otp": shown.stdout.strip()}, key=key)
    replayed = await debtor.client.confirm(body, key=key)

    assert asked.status == 200
    assert asked.json.keys() == {"status", "message", "transaction_id", "risk_level", "expires_at"}
    assert b'"status":"OTP_REQUIRED"' in asked.body
    assert asked.json["risk_level"] == "HIGH"
    assert datetime.fromisoformat(asked.json["expires_at"]) > datetime.now(UTC)
    assert shown.returncode == 0, shown.stderr
    assert paid.status == 200
    assert b'"status":"SUCCESS"' in paid.body
    assert b'"amount":15000.00,' in paid.body
    assert replayed.body == paid.body
    assert await debtor.balances() == ("85000.00", "0.00", "85000.00")


async def test_the_password_itself_is_in_no_answer(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = debtor.body(creditor.account, HIGH), new_key()

    asked = await debtor.client.confirm(body, key=key)

    code = await debtor.otp(str(body["transaction_id"]))
    assert code.encode() not in asked.body
    assert len(code) == 6


async def test_a_repeat_without_a_password_shows_the_same_challenge(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)
    code = await debtor.otp(str(body["transaction_id"]))

    again = await debtor.client.confirm(body, key=key)

    assert again.json["status"] == "OTP_REQUIRED"
    assert await debtor.otp(str(body["transaction_id"])) == code


async def test_after_five_wrong_passwords_the_right_one_is_of_no_use(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)
    code = await debtor.otp(str(body["transaction_id"]))

    wrongs = [await debtor.client.confirm(body | {"otp": wrong(code)}, key=key) for _ in range(5)]
    right = await debtor.client.confirm(body | {"otp": code}, key=key)

    assert {refusal(answer) for answer in wrongs[:4]} == {(422, "INVALID_OTP")}
    assert wrongs[4].status == 422
    assert refusal(right) == (422, "OTP_EXPIRED")
    assert await debtor.balances() == ("100000.00", "0.00", "100000.00")


async def test_after_five_wrong_passwords_a_new_one_can_be_asked_for(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)
    code = await debtor.otp(str(body["transaction_id"]))
    for _ in range(5):
        await debtor.client.confirm(body | {"otp": wrong(code)}, key=key)

    again = await debtor.client.confirm(body, key=key)
    new = await debtor.otp(str(body["transaction_id"]))
    paid = await debtor.client.confirm(body | {"otp": new}, key=key)

    assert again.json["status"] == "OTP_REQUIRED"
    assert paid.json["status"] == "SUCCESS"


async def test_a_wrong_password_changes_nothing_but_the_tries(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)
    code = await debtor.otp(str(body["transaction_id"]))

    refused = await debtor.client.confirm(body | {"otp": wrong(code)}, key=key)
    paid = await debtor.client.confirm(body | {"otp": code}, key=key)

    assert refusal(refused) == (422, "INVALID_OTP")
    assert paid.json["status"] == "SUCCESS"


async def test_many_guesses_at_once_get_five_tries_in_all(make: Factory, system: System) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)
    code = await debtor.otp(str(body["transaction_id"]))
    guesses = [f"{(int(code) + step) % 1_000_000:06d}" for step in range(1, 31)]

    await asyncio.gather(
        *(
            debtor.client.at(system.gateway_urls[index % 2]).confirm(body | {"otp": guess}, key=key)
            for index, guess in enumerate(guesses)
        )
    )
    for guess in guesses[:5]:
        await debtor.client.confirm(body | {"otp": guess}, key=key)

    right = await debtor.client.confirm(body | {"otp": code}, key=key)
    assert refusal(right) == (422, "OTP_EXPIRED")
    assert await debtor.balances() == ("100000.00", "0.00", "100000.00")


@pytest.mark.parametrize("code", ["12345", "abcdef", "١٢٣٤٥٦", " 12345", "1234567890123456"])
async def test_what_is_no_code_at_all_is_a_wrong_one(make: Factory, code: str) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)

    answer = await debtor.client.confirm(body | {"otp": code}, key=key)

    assert refusal(answer) == (422, "INVALID_OTP")


async def test_one_payment_s_password_is_no_good_for_another(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    one, _ = await ask(debtor, creditor, "15000.00")
    two, key = await ask(debtor, creditor, "16000.00")
    code = await debtor.otp(str(one["transaction_id"]))

    answer = await debtor.client.confirm(two | {"otp": code}, key=key)

    assert answer.error == "INVALID_OTP" or code == await debtor.otp(str(two["transaction_id"]))


async def test_a_password_does_not_let_the_amount_be_changed(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)
    code = await debtor.otp(str(body["transaction_id"]))

    answer = await debtor.client.confirm(body | {"otp": code, "amount": "99000.00"}, key=key)

    assert refusal(answer) == (422, "IDEMPOTENCY_KEY_REUSED")


async def test_a_password_that_nobody_asked_for_changes_nothing(make: Factory) -> None:
    debtor, creditor = await make.customer(), await make.customer()

    answer = await debtor.pay(creditor.account, "10.00", otp="123456")

    assert answer.json["status"] == "SUCCESS"


async def test_too_many_passwords_for_one_payment_are_a_429_with_a_time(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)

    answers = []
    for _ in range(3):
        code = await debtor.otp(str(body["transaction_id"]))
        for _ in range(5):
            await debtor.client.confirm(body | {"otp": wrong(code)}, key=key)
        answers.append(await debtor.client.confirm(body, key=key))

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[2].error == "TOO_MANY_OTPS"
    assert int(answers[2].headers["retry-after"]) > 0


@pytest.mark.parametrize(
    ("amount", "status", "level"),
    [
        ("5000.00", "SUCCESS", "LOW"),
        ("5000.01", "SUCCESS", "MEDIUM"),
        ("10000.00", "SUCCESS", "MEDIUM"),
        ("10000.01", "OTP_REQUIRED", "HIGH"),
    ],
)
async def test_the_amount_decides_the_risk(make: Factory, amount: str, status: str, level: str) -> None:
    debtor, creditor = await rich(make), await make.customer()

    answer = await debtor.pay(creditor.account, amount)

    assert (answer.json["status"], answer.json["risk_level"]) == (status, level)


@pytest.mark.parametrize(
    ("amount", "status", "level"), [("100.00", "SUCCESS", "MEDIUM"), ("5000.01", "OTP_REQUIRED", "HIGH")]
)
async def test_an_unverified_customer_is_a_higher_risk(make: Factory, amount: str, status: str, level: str) -> None:
    debtor, creditor = await make.customer(is_verified=False, USD="100000.00"), await make.customer()

    answer = await debtor.pay(creditor.account, amount)

    assert (answer.json["status"], answer.json["risk_level"]) == (status, level)


async def test_the_sixth_payment_in_a_day_adds_to_the_risk(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()

    levels = [(await debtor.pay(creditor.account, "1.00")).json["risk_level"] for _ in range(6)]
    seventh = await debtor.pay(creditor.account, "5000.01")

    assert levels == ["LOW"] * 5 + ["MEDIUM"]
    assert seventh.json["status"] == "OTP_REQUIRED"


async def test_payments_at_once_are_counted_like_payments_one_after_another(make: Factory) -> None:
    debtor, creditor = await rich(make), await make.customer()

    answers = await asyncio.gather(*(debtor.pay(creditor.account, "1.00") for _ in range(8)))

    levels = sorted(answer.json["risk_level"] for answer in answers)
    assert levels == ["LOW"] * 5 + ["MEDIUM"] * 3


async def test_two_right_passwords_at_once_pay_once(make: Factory, system: System) -> None:
    debtor, creditor = await rich(make), await make.customer()
    body, key = await ask(debtor, creditor)
    code = await debtor.otp(str(body["transaction_id"]))

    answers = await asyncio.gather(
        *(debtor.client.at(url).confirm(body | {"otp": code}, key=key) for url in system.gateway_urls * 4)
    )

    assert {answer.status for answer in answers} <= {200, 409}
    assert len({answer.body for answer in answers if answer.status == 200}) == 1
    assert await debtor.balances() == ("85000.00", "0.00", "85000.00")
