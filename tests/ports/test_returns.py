"""Returns of completed payments: over memory and over PostgreSQL, with a real ledger behind them in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from payflow.contracts.account import (
    AccountState,
    ChangeAccountState,
    EntryPage,
    InsufficientFunds,
    ListEntries,
    NewAccount,
    NewCustomer,
)
from payflow.contracts.confirm import (
    Creditor,
    GetPayment,
    KeyReused,
    ListPayments,
    PaymentNotFound,
    PaymentView,
)
from payflow.contracts.returns import (
    DecideReturn,
    FourEyesRequired,
    ListReturns,
    NotReturnable,
    ReturnDecided,
    ReturnExceedsPayment,
    ReturnNotFound,
    ReturnNotPossible,
    ReturnOwnPayment,
    ReturnPage,
    ReturnView,
)
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import InvalidAmount
from payflow.services.confirm.usecases.returns import do_due_returns
from tests.builders import new_id
from tests.builders_confirm import IBAN, World
from tests.builders_confirm import world as world
from tests.builders_returns import asked, decide, now, paid, request, requested, returned_of


async def test_a_completed_payment_is_returned_by_a_payment_of_its_own(world: World) -> None:
    payment = await paid(world)

    made = await requested(world, payment)

    assert (made.state, made.amount_minor, made.payment_id) == ("COMPLETED", 90_000, payment.payment_id)
    assert made.return_id != payment.payment_id
    assert (made.debtor_account, made.creditor_account) == (world.creditor, world.debtor)
    assert await world.balance(world.creditor) == (0, 0)
    assert await world.balance(world.debtor) == (10_000_000, 0)
    (page,) = await world.operator.list_entries([ListEntries(number=world.debtor)])
    assert isinstance(page, EntryPage)
    assert [(line.kind, line.payment_id) for line in page.entries[:2]] == [
        ("return", made.return_id),
        ("transfer", payment.payment_id),
    ]


async def test_a_payment_tells_what_has_come_back_of_it(world: World) -> None:
    payment, other = await paid(world), await paid(world)

    await requested(world, payment, "100.00")
    await requested(world, payment, "50.50")

    (history,) = await world.gateway.history([GetPayment(transaction_id=str(payment.payment_id), customer_id=None)])
    (page,) = await world.gateway.list_payments([ListPayments(customer_id=world.customer)])
    assert await returned_of(world, payment) == 15_050
    assert await returned_of(world, other) == 0
    assert history.payment.returned_minor == 15_050
    told = {view.payment_id: view.returned_minor for view in page.payments}
    assert told == {payment.payment_id: 15_050, other.payment_id: 0}


async def test_the_rest_is_returned_where_no_amount_is_given(world: World) -> None:
    payment = await paid(world)
    await requested(world, payment, "100.00")

    rest = await requested(world, payment)

    assert rest.amount_minor == 80_000
    assert await request(world, asked(payment)) == ReturnExceedsPayment(
        "Nothing is left of the payment that could be returned."
    )


async def test_a_repeat_under_the_same_key_gets_the_same_return_and_moves_nothing(world: World) -> None:
    payment = await paid(world)
    command = asked(payment, "100.00")

    first, second = await request(world, command), await request(world, command)

    assert first == second
    assert await world.balance(world.creditor) == (80_000, 0)


async def test_the_same_key_with_other_content_is_refused_and_is_free_for_somebody_else(world: World) -> None:
    payment = await paid(world)
    await request(world, asked(payment, "100.00", idempotency_key="k1"))

    other = await request(world, asked(payment, "200.00", idempotency_key="k1"))
    colleague = await request(world, asked(payment, "200.00", idempotency_key="k1", requested_by="omar"))

    assert isinstance(other, KeyReused)
    assert isinstance(colleague, ReturnView)


@pytest.mark.parametrize(
    ("amount", "error"),
    [
        ("900.01", ReturnExceedsPayment("At most 900.00 USD of the payment can still be returned.")),
        ("0.00", InvalidAmount("The amount must be greater than zero.")),
        ("1.001", InvalidAmount("USD has 2 decimals; the amount has 3.")),
    ],
)
async def test_an_amount_that_does_not_fit_is_refused_and_nothing_is_stored(
    world: World, amount: str, error: PayflowError
) -> None:
    payment = await paid(world)

    refused = await request(world, asked(payment, amount))

    (page,) = await world.returns.list_returns([ListReturns(payment_id=payment.payment_id)])
    assert refused == error
    assert page == ReturnPage(returns=[], next_cursor=None)


async def test_returns_at_the_same_moment_never_come_to_more_than_the_payment(world: World) -> None:
    payment = await paid(world, "1000.00")

    answers = await asyncio.gather(*(request(world, asked(payment, "150.00")) for _ in range(20)))

    made = [answer for answer in answers if isinstance(answer, ReturnView)]
    assert len(made) == 6
    assert all(isinstance(answer, ReturnExceedsPayment) for answer in answers if not isinstance(answer, ReturnView))
    assert await returned_of(world, payment) == 90_000
    assert await world.balance(world.creditor) == (10_000, 0)


async def test_one_key_at_the_same_moment_moves_the_money_once(world: World) -> None:
    payment = await paid(world)
    command = asked(payment, "100.00")

    answers = await asyncio.gather(*(request(world, command) for _ in range(20)))

    assert len({answer.return_id for answer in answers if isinstance(answer, ReturnView)}) == 1
    assert await world.balance(world.creditor) == (80_000, 0)


async def test_only_a_completed_payment_of_ours_is_returned(world: World) -> None:
    waiting = await world.pay(world.request("20000.00"))
    assert isinstance(waiting, PaymentView)

    assert isinstance(await request(world, asked(waiting)), NotReturnable)
    assert isinstance(await request(world, asked(new_id())), PaymentNotFound)


async def test_a_return_is_not_returned_itself(world: World) -> None:
    made = await requested(world, await paid(world))

    assert isinstance(await request(world, asked(made.return_id)), PaymentNotFound)


async def test_money_that_has_left_for_another_bank_is_asked_for_there(world: World) -> None:
    sent = await world.end_of(await world.pay(world.request(to=IBAN, creditor=Creditor(name="Erika"))))
    assert isinstance(sent, PaymentView)
    assert sent.state == "COMPLETED"

    assert isinstance(await request(world, asked(sent)), ReturnNotPossible)


async def test_a_creditor_who_has_spent_the_money_returns_nothing_and_the_amount_is_free_again(world: World) -> None:
    payment = await paid(world)
    third, fourth = f"c{new_id().hex}", f"D{new_id().hex}"
    await world.operator.create_customers([NewCustomer(customer_id=third, name="Alan T.")])
    await world.operator.create_accounts([NewAccount(number=fourth, customer_id=third, currency="USD")])
    party = (await world.ledger.parties([world.creditor]))[world.creditor]
    spent = await world.pay(
        world.request("500.00", customer_id=party.customer_id, debtor_account=world.creditor, to=fourth)
    )
    assert isinstance(spent, PaymentView)
    command = asked(payment)

    refused, again = await request(world, command), await request(world, command)

    assert isinstance(refused, ReturnView)
    assert (refused.state, refused.error_code) == ("REJECTED", InsufficientFunds.code)
    assert again == refused
    assert (await requested(world, payment, "400.00")).state == "COMPLETED"


async def test_a_closed_or_blocked_account_takes_and_gives_nothing(world: World) -> None:
    payment = await paid(world)
    for number in (world.creditor, world.debtor):
        blocked = ChangeAccountState(number=number, state=AccountState.BLOCKED, reason="r", changed_by="x")
        await world.operator.change_account_state([blocked])
        refused = await requested(world, payment)
        await world.operator.change_account_state(
            [ChangeAccountState(number=number, state=AccountState.OPEN, reason="r", changed_by="x")]
        )

        assert (refused.state, refused.error_code) == ("REJECTED", "ACCOUNT_BLOCKED")
    assert await returned_of(world, payment) == 0


async def test_above_the_limit_a_return_waits_for_another_person(world: World) -> None:
    payment = await paid(world, "5000.00")

    waiting = await requested(world, payment, "1000.01")
    before = await world.balance(world.creditor)
    done = await decide(world, waiting)

    assert (waiting.state, waiting.needs_approval, waiting.requested_by) == ("AWAITING_APPROVAL", True, "olga")
    assert before == (500_000, 0)
    assert isinstance(done, ReturnView)
    assert (done.state, done.decided_by) == ("COMPLETED", "omar")
    assert await world.balance(world.creditor) == (399_999, 0)
    steps = await world.return_ports.returns.steps(done.return_id)
    assert [(step.target, step.taken_by) for step in steps] == [
        ("AWAITING_APPROVAL", "olga"),
        ("APPROVED", "omar"),
        ("COMPLETED", None),
    ]


async def test_the_limit_is_not_walked_around_in_small_steps(world: World) -> None:
    payment = await paid(world, "5000.00")

    small = await requested(world, payment, "1000.00")
    next_ = await requested(world, payment, "0.01")

    assert (small.state, next_.state) == ("COMPLETED", "AWAITING_APPROVAL")


async def test_what_waits_for_approval_is_taken_and_comes_free_when_declined(world: World) -> None:
    payment = await paid(world, "5000.00")
    waiting = await requested(world, payment, "4000.00")

    too_much = await request(world, asked(payment, "1000.01"))
    declined = await decide(world, waiting, is_approved=False)
    whole = await requested(world, payment)

    assert isinstance(too_much, ReturnExceedsPayment)
    assert isinstance(declined, ReturnView)
    assert (declined.state, declined.decided_by, declined.error_code) == ("DECLINED", "omar", "PAYMENT_REFUSED")
    assert whole.amount_minor == 500_000


async def test_nobody_approves_their_own_request_or_a_return_of_their_own_payment(world: World) -> None:
    payment = await paid(world, "5000.00")
    payee = (await world.ledger.parties([world.creditor]))[world.creditor].customer_id
    waiting = await requested(world, payment)

    assert isinstance(await decide(world, waiting, by="olga"), FourEyesRequired)
    assert isinstance(await decide(world, waiting, by="Olga"), FourEyesRequired)
    for customer in (world.customer, payee):
        assert isinstance(await decide(world, waiting, customer=customer), ReturnOwnPayment)
        assert isinstance(await request(world, asked(payment, officer_customer_id=customer)), ReturnOwnPayment)
    assert (await now(world, waiting)).state == "AWAITING_APPROVAL"


async def test_a_return_is_decided_once(world: World) -> None:
    payment = await paid(world, "5000.00")
    waiting = await requested(world, payment)

    first = await decide(world, waiting)

    assert await decide(world, waiting) == first
    assert isinstance(await decide(world, waiting, is_approved=False), ReturnDecided)
    assert isinstance(await decide(world, waiting, by="ida"), ReturnDecided)
    (unknown,) = await world.returns.decide_return(
        [DecideReturn(return_id=new_id(), is_approved=True, decided_by="omar")]
    )
    assert isinstance(unknown, ReturnNotFound)
    assert await returned_of(world, payment) == 500_000


async def test_approvals_at_the_same_moment_move_the_money_once(world: World) -> None:
    payment = await paid(world, "5000.00")
    waiting = await requested(world, payment, "2000.00")

    await asyncio.gather(*(decide(world, waiting, by=f"officer{number}") for number in range(10)))

    assert await returned_of(world, payment) == 200_000
    assert await world.balance(world.creditor) == (300_000, 0)


async def test_without_an_approval_it_expires_after_72_hours(world: World) -> None:
    payment = await paid(world, "5000.00")
    waiting = await requested(world, payment)
    world.clock.move(timedelta(hours=72))

    taken = await do_due_returns(ports=world.return_ports)

    ended = await now(world, waiting)
    assert taken == 1
    assert (ended.state, ended.error_code) == ("EXPIRED", "PAYMENT_EXPIRED")
    assert isinstance(await decide(world, waiting), ReturnDecided)
    assert (await requested(world, payment)).amount_minor == 500_000
