"""One suite for confirm over its in-memory store and over PostgreSQL, with a real ledger behind it in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest

from payflow.contracts.account import (
    AccountNotYours,
)
from payflow.contracts.confirm import (
    CancelPayment,
    Confirm,
    Creditor,
    DecideReview,
    GetPayment,
    KeyReused,
    NotCancellable,
    PaymentInProgress,
    PaymentView,
    RecordBankAnswer,
    TransactionExists,
)
from payflow.contracts.otp import InvalidOtp
from payflow.contracts.partner_bank import BankStatus, UnknownAgent
from payflow.kernel.errors import Unavailable
from payflow.platform.rpc import in_process
from tests.builders_confirm import IBAN, World, with_otp
from tests.builders_confirm import world as world


async def test_a_payment_between_our_accounts_completes_at_once(world: World) -> None:
    view = await world.pay(world.request("1000.00"))

    assert isinstance(view, PaymentView), view
    assert (view.state, view.amount_minor, view.currency, view.risk_level) == ("COMPLETED", 100_000, "USD", "LOW")
    assert view.reference is not None
    assert await world.balance(world.creditor) == (100_000, 0)


async def test_a_repeat_with_the_same_key_gets_the_same_answer_and_moves_nothing(world: World) -> None:
    request = world.request()

    first, second = await world.pay(request), await world.pay(request)

    assert first == second
    assert await world.balance(world.creditor) == (100_000, 0)


async def test_a_hundred_equal_requests_at_once_move_the_money_once(world: World) -> None:
    request = world.request()

    answers = [
        answer
        for batch in await asyncio.gather(*(world.api.confirm([request] * 10) for _ in range(10)))
        for answer in batch
    ]

    assert {type(answer) for answer in answers} <= {PaymentView, PaymentInProgress}
    assert sum(isinstance(answer, PaymentView) for answer in answers) >= 1
    assert await world.balance(world.creditor) == (100_000, 0)


async def test_a_key_with_other_content_is_refused(world: World) -> None:
    await world.pay(world.request("1000.00", key="k1"))

    answer = await world.pay(world.request("1001.00", key="k1"))

    assert isinstance(answer, KeyReused)


async def test_a_transaction_id_under_another_key_is_a_conflict(world: World) -> None:
    await world.pay(world.request(transaction_id="txn_001"))

    answer = await world.pay(world.request(transaction_id="txn_001"))

    assert isinstance(answer, TransactionExists)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"amount": "0"}, "INVALID_AMOUNT"),
        ({"amount": "10.001"}, "INVALID_AMOUNT"),
        ({"amount": "200000.00"}, "INSUFFICIENT_FUNDS"),
        ({"currency": "EUR"}, "CURRENCY_MISMATCH"),
        ({"to": "{creditor}E"}, "CURRENCY_MISMATCH"),
        ({"to": "NO_SUCH_ACCOUNT"}, "CREDITOR_UNREACHABLE"),
        ({"to": "{debtor}"}, "SAME_ACCOUNT"),
    ],
)
async def test_a_refused_payment_is_stored_and_told_again(world: World, change: dict[str, str], code: str) -> None:
    if "to" in change:
        change = {"to": change["to"].format(creditor=world.creditor, debtor=world.debtor)}
    request = world.request(**change)
    if code == "INSUFFICIENT_FUNDS":
        asked = await world.pay(request)
        assert asked.state == "AWAITING_OTP"
        request = with_otp(request, "123456")

    first, second = await world.pay(request), await world.pay(request)

    assert isinstance(first, PaymentView), first
    assert (first.state, first.error_code) == ("REJECTED", code)
    assert first == second
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_another_customers_account_is_refused_and_the_key_stays_free(world: World) -> None:
    stolen = world.request(debtor_account=world.creditor, to=world.debtor, key="k1")

    refused = await world.pay(stolen)
    paid = await world.pay(world.request(key="k1"))

    assert isinstance(refused, AccountNotYours)
    assert paid.state == "COMPLETED"


async def test_a_risky_payment_asks_for_a_one_time_password_and_completes_under_the_same_key(world: World) -> None:
    request = world.request("15000.00")

    asked = await world.pay(request)
    wrong = await world.pay(with_otp(request, "000000"))
    still = await world.pay(request)
    paid = await world.pay(with_otp(request, "123456"))
    again = await world.pay(request)

    assert (asked.state, asked.risk_level) == ("AWAITING_OTP", "HIGH")
    assert isinstance(wrong, InvalidOtp)
    assert wrong.extra["tries_left"] == 4
    assert still.state == "AWAITING_OTP"
    assert paid.state == "COMPLETED"
    assert again == paid
    assert await world.balance(world.creditor) == (1_500_000, 0)


async def test_a_payment_without_its_one_time_password_expires(world: World) -> None:
    request = world.request("15000.00")
    await world.pay(request)
    world.clock.move(timedelta(minutes=15))

    await world.due()
    answer = await world.pay(with_otp(request, "123456"))

    assert (answer.state, answer.error_code) == ("EXPIRED", "PAYMENT_EXPIRED")
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_possible_sanctions_match_holds_the_funds_until_an_officer_clears_it(world: World) -> None:
    request = world.request(creditor=Creditor(name="Somebody Listed"))

    pending = await world.pay(request)
    held = await world.balance(world.debtor)
    (cleared,) = await in_process(Confirm, world.api, caller="ofac").decide_review(
        [DecideReview(payment_id=pending.payment_id, is_cleared=True, decided_by="officer")]
    )

    assert pending.state == "UNDER_REVIEW"
    assert held == (10_000_000, 100_000)
    assert cleared.state == "COMPLETED"
    assert await world.balance(world.debtor) == (9_900_000, 0)
    assert await world.pay(request) == cleared


async def test_a_blocked_review_gives_the_money_back_and_refuses_without_a_reason(world: World) -> None:
    pending = await world.pay(world.request(creditor=Creditor(name="Somebody Listed")))
    officer: Confirm = in_process(Confirm, world.api, caller="ofac")
    command = DecideReview(payment_id=pending.payment_id, is_cleared=False, decided_by="officer")

    (refused,) = await officer.decide_review([command])
    (again,) = await officer.decide_review([command])

    assert (refused.state, refused.error_code) == ("REJECTED", "PAYMENT_REFUSED")
    assert "sanction" not in (refused.error_detail or "").lower()
    assert again == refused
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_cleared_payment_still_needs_its_one_time_password(world: World) -> None:
    request = world.request("15000.00", creditor=Creditor(name="Somebody Listed"))
    pending = await world.pay(request)

    (cleared,) = await in_process(Confirm, world.api, caller="ofac").decide_review(
        [DecideReview(payment_id=pending.payment_id, is_cleared=True, decided_by="officer")]
    )
    paid = await world.pay(with_otp(request, "123456"))

    assert cleared.state == "AWAITING_OTP"
    assert paid.state == "COMPLETED"
    assert await world.balance(world.debtor) == (8_500_000, 0)


async def test_a_review_without_a_decision_expires_and_gives_the_money_back(world: World) -> None:
    request = world.request(creditor=Creditor(name="Somebody Listed"))
    await world.pay(request)
    world.clock.move(timedelta(hours=72))

    await world.due()

    assert (await world.pay(request)).state == "EXPIRED"
    assert await world.balance(world.debtor) == (10_000_000, 0)


@pytest.mark.parametrize("amount", ["1000.00", "15000.00"])
async def test_the_customer_can_cancel_while_the_payment_waits(world: World, amount: str) -> None:
    creditor = Creditor(name="Somebody Listed") if amount == "1000.00" else None
    request = world.request(amount, creditor=creditor)
    await world.pay(request)
    command = CancelPayment(customer_id=world.customer, transaction_id=request.transaction_id)

    (cancelled,) = await world.gateway.cancel([command])
    (again,) = await world.gateway.cancel([command])

    assert (cancelled.state, cancelled.error_code) == ("CANCELLED", "PAYMENT_CANCELLED")
    assert again == cancelled
    assert (await world.pay(with_otp(request, "123456"))).state == "CANCELLED"
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_completed_payment_cannot_be_cancelled(world: World) -> None:
    request = world.request()
    await world.pay(request)

    (answer,) = await world.gateway.cancel(
        [CancelPayment(customer_id=world.customer, transaction_id=request.transaction_id)]
    )

    assert isinstance(answer, NotCancellable)


async def test_an_inter_bank_payment_completes_when_the_bank_accepts(world: World) -> None:
    submitted = await world.pay(world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau")))

    ended = await world.end_of(submitted)

    assert submitted.state == "SUBMITTED"
    assert ended.state == "COMPLETED"
    assert world.bank.paid == {submitted.payment_id: 100_000}
    assert await world.balance(world.debtor) == (9_900_000, 0)


async def test_an_inter_bank_payment_is_refunded_when_the_bank_rejects(world: World) -> None:
    world.bank.status = BankStatus.REJECTED

    ended = await world.end_of(await world.pay(world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"))))

    assert (ended.state, ended.error_code) == ("REJECTED", "PAYMENT_REFUSED")
    assert ended.error_detail == "The other bank refused the payment: the account is closed (AC04)."
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_payment_that_cannot_be_sent_is_refunded_at_once(world: World) -> None:
    world.bank.refusal = UnknownAgent("There is no route to that bank.")

    ended = await world.end_of(await world.pay(world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"))))

    assert (ended.state, ended.error_code) == ("REJECTED", "UNKNOWN_AGENT")
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_silence_of_the_other_bank_keeps_the_funds_held_until_its_late_word(world: World) -> None:
    world.bank.status = BankStatus.UNKNOWN
    request = world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"))
    pending = await world.end_of(await world.pay(request))
    world.clock.move(timedelta(days=30))
    held = await world.balance(world.debtor)

    (ended,) = await in_process(Confirm, world.api, caller="partner_bank").record_bank_answer(
        [RecordBankAnswer(payment_id=pending.payment_id, is_accepted=True)]
    )

    assert pending.state == "SUBMITTED"
    assert held == (10_000_000, 100_000)
    assert ended.state == "COMPLETED"
    assert await world.balance(world.debtor) == (9_900_000, 0)
    assert (await world.pay(request)).state == "COMPLETED"


async def test_a_silent_bank_is_asked_again_by_itself(world: World) -> None:
    world.bank.status = BankStatus.UNKNOWN
    pending = await world.end_of(await world.pay(world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"))))
    world.bank.status = BankStatus.ACCEPTED
    world.clock.move(timedelta(seconds=20))

    await world.due()
    ended = await world.end_of(pending)

    assert ended.state == "COMPLETED"


async def test_while_a_service_is_down_nothing_happens_and_the_same_key_goes_on_later(world: World) -> None:
    request = world.request()
    world.risk.is_down = True

    failed = await world.pay(request)
    world.risk.is_down = False
    paid = await world.pay(request)

    assert isinstance(failed, Unavailable)
    assert paid.state == "COMPLETED"
    assert await world.balance(world.creditor) == (100_000, 0)


async def test_where_nobody_answered_and_nothing_is_left_of_the_payment_nothing_happened(world: World) -> None:
    request = world.request()
    world.risk.is_silent = True

    failed = await world.pay(request)

    assert isinstance(failed, Unavailable)
    (known,) = await world.gateway.get([GetPayment(transaction_id=request.transaction_id, customer_id=world.customer)])
    assert known.code == "PAYMENT_NOT_FOUND"


async def test_a_request_that_was_told_nothing_happened_is_never_paid_later_and_its_key_is_free(world: World) -> None:
    world.risk.is_down = True
    failed = await world.pay(world.request("1000.00", key="k1", transaction_id="t1"))
    world.risk.is_down = False
    world.clock.move(timedelta(days=3))

    taken = await world.due()
    other = await world.pay(world.request("7.00", key="k1", transaction_id="t1"))

    assert isinstance(failed, Unavailable)
    assert taken == 0
    assert (other.state, other.amount_minor) == ("COMPLETED", 700)
    assert await world.balance(world.creditor) == (700, 0)


async def test_an_unfinished_payment_that_nobody_expects_any_more_is_ended_instead_of_made(world: World) -> None:
    request = world.request()
    await world.leave_behind(request)
    world.clock.move(timedelta(minutes=2))

    await world.due()
    answer = await world.pay(request)

    assert (answer.state, answer.error_code) == ("REJECTED", "PAYMENT_EXPIRED")
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_payment_whose_process_died_after_the_booking_is_completed_however_late(world: World) -> None:
    request = world.request()
    save, world.store.save = world.store.save, _dies
    with pytest.raises(RuntimeError):
        await world.pay(request)
    world.store.save = save
    world.clock.move(timedelta(minutes=2))

    await world.due()
    answer = await world.pay(request)

    assert answer.state == "COMPLETED"
    assert await world.balance(world.creditor) == (100_000, 0)


async def _dies(*_: object, **__: object) -> set[UUID]:
    raise RuntimeError("the process dies here")


async def test_a_payment_to_another_bank_needs_the_creditors_name(world: World) -> None:
    answers = [
        await world.pay(world.request(to=IBAN)),
        await world.pay(world.request(to=IBAN, creditor=Creditor(name="  "))),
    ]

    assert [answer.error_code for answer in answers] == ["CREDITOR_NAME_REQUIRED"] * 2
    assert world.bank.paid == {}


async def test_one_payment_that_cannot_be_driven_does_not_keep_others_back(world: World) -> None:
    requests = [world.request() for _ in range(3)]
    for request in requests:
        await world.leave_behind(request)
    world.clock.move(timedelta(seconds=11))
    (poison,) = await world.gateway.get(
        [GetPayment(transaction_id=requests[1].transaction_id, customer_id=world.customer)]
    )
    world.risk.poison = poison.payment_id

    with pytest.raises(RuntimeError):
        await world.due()
    world.risk.poison = None

    states = [
        (await world.gateway.get([GetPayment(transaction_id=one.transaction_id, customer_id=world.customer)]))[0].state
        for one in requests
    ]
    assert states == ["COMPLETED", "RECEIVED", "COMPLETED"]
