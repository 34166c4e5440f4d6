"""Returns of completed payments: over memory and over PostgreSQL, with a real ledger behind them in memory."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from payflow.contracts.account import (
    AccountState,
    Booked,
    ChangeAccountState,
    EntryPage,
    InsufficientFunds,
    ListEntries,
    NewAccount,
    NewCustomer,
    Transfer,
)
from payflow.contracts.confirm import (
    Creditor,
    DecideReview,
    GetPayment,
    KeyReused,
    ListPayments,
    PaymentNotFound,
    PaymentView,
)
from payflow.contracts.returns import (
    DecideReturn,
    FourEyesRequired,
    GetReturn,
    ListReturns,
    NotReturnable,
    RequestReturn,
    ReturnDecided,
    ReturnExceedsPayment,
    ReturnNotFound,
    ReturnNotPossible,
    ReturnOwnPayment,
    ReturnPage,
    ReturnReason,
    ReturnState,
    ReturnView,
)
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.kernel.money import InvalidAmount
from payflow.services.confirm.return_api import measure_open_returns
from payflow.services.confirm.usecases.returns import do_due_returns
from tests.builders import new_id
from tests.fakes_confirm import FakeConfirmStore
from tests.fakes_returns import FakeReturnStore
from tests.ports.test_confirm import IBAN, World, world

__all__ = ["world"]


async def paid(world: World, amount: str = "900.00") -> PaymentView:
    view = await world.pay(world.request(amount))
    assert isinstance(view, PaymentView), view
    assert view.state == "COMPLETED"
    return view


def asked(payment: PaymentView | UUID, amount: str | None = None, **more: object) -> RequestReturn:
    payment_id = payment if isinstance(payment, UUID) else payment.payment_id
    values = {
        "payment_id": payment_id,
        "idempotency_key": new_id().hex,
        "reason_code": ReturnReason.DUPLICATION,
        "requested_by": "olga",
        "amount": amount,
        **more,
    }
    values.setdefault("fingerprint", repr((payment_id, amount)).encode())
    return RequestReturn(**values)


async def request(world: World, command: RequestReturn) -> ReturnView | PayflowError:
    (answer,) = await world.returns.request_return([command])
    return answer


async def requested(world: World, payment: PaymentView, amount: str | None = None, **more: object) -> ReturnView:
    answer = await request(world, asked(payment, amount, **more))
    assert isinstance(answer, ReturnView), answer
    return answer


async def decide(
    world: World, view: ReturnView, *, by: str = "omar", is_approved: bool = True, customer: str | None = None
) -> ReturnView | PayflowError:
    command = DecideReturn(
        return_id=view.return_id, is_approved=is_approved, decided_by=by, officer_customer_id=customer
    )
    (answer,) = await world.returns.decide_return([command])
    return answer


async def now(world: World, view: ReturnView) -> ReturnView:
    (found,) = await world.returns.get_returns([GetReturn(return_id=view.return_id)])
    assert isinstance(found, ReturnView), found
    return found


async def returned_of(world: World, payment: PaymentView) -> int:
    (found,) = await world.gateway.get([GetPayment(transaction_id=str(payment.payment_id), customer_id=None)])
    assert isinstance(found, PaymentView), found
    return found.returned_minor


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


async def test_without_screening_nothing_moves_and_it_is_made_as_soon_as_there_is_one(world: World) -> None:
    payment = await paid(world)
    world.risk.is_down = True

    waiting = await requested(world, payment)
    at_once = await do_due_returns(ports=world.return_ports)
    world.risk.is_down = False
    world.clock.move(timedelta(seconds=11))
    await do_due_returns(ports=world.return_ports)

    assert waiting.state == "APPROVED"
    assert at_once == 0
    assert (await now(world, waiting)).state == "COMPLETED"
    assert await world.balance(world.creditor) == (0, 0)


async def test_what_could_not_be_made_for_a_day_expires_and_can_not_be_made_later(world: World) -> None:
    payment = await paid(world)
    world.risk.is_down = True
    late = await requested(world, payment)
    world.risk.is_down = False
    world.clock.move(timedelta(hours=24))

    await do_due_returns(ports=world.return_ports)

    assert (await now(world, late)).state == "EXPIRED"
    assert await world.balance(world.creditor) == (90_000, 0)
    assert await do_due_returns(ports=world.return_ports) == 0


async def test_a_process_that_died_after_storing_is_taken_over(world: World) -> None:
    payment = await paid(world)
    world.risk.crashes = True
    command = asked(payment)
    with pytest.raises(RuntimeError):
        await world.returns.request_return([command])
    world.risk.crashes = False
    world.clock.move(timedelta(seconds=11))

    await asyncio.gather(*(do_due_returns(ports=world.return_ports) for _ in range(3)))

    told = await request(world, command)
    assert isinstance(told, ReturnView)
    assert told.state == "COMPLETED"
    assert await world.balance(world.creditor) == (0, 0)


async def booked_by_a_process_that_died(world: World) -> ReturnView:
    """A return whose money has moved, and nobody lived to store it."""
    payment = await paid(world)
    world.risk.crashes = True
    with pytest.raises(RuntimeError):
        await world.returns.request_return([asked(payment)])
    world.risk.crashes = False
    (page,) = await world.returns.list_returns([ListReturns(payment_id=payment.payment_id)])
    assert isinstance(page, ReturnPage)
    (made,) = (await world.return_ports.returns.by_ids([page.returns[0].return_id])).values()
    command = Transfer(
        payment_id=made.return_id,
        fencing_token=made.fencing_token,
        debtor_account_id=made.debtor_account_id,
        creditor_account_id=made.creditor_account_id,
        amount_minor=made.amount_minor,
        currency=made.currency,
        is_return=True,
    )
    (booked,) = await world.ports.account.transfer([command])
    assert isinstance(booked, Booked)
    return page.returns[0]


@pytest.mark.parametrize("later", [timedelta(seconds=11), timedelta(hours=25)], ids=["soon", "after its deadline"])
async def test_money_that_moved_before_its_process_died_is_told_as_returned(world: World, later: timedelta) -> None:
    made = await booked_by_a_process_that_died(world)
    world.clock.move(later)

    await do_due_returns(ports=world.return_ports)

    assert (await now(world, made)).state == "COMPLETED"
    assert await world.balance(world.creditor) == (0, 0)


async def test_a_process_that_lost_its_lease_stores_nothing(world: World) -> None:
    payment = await paid(world)
    world.risk.is_down = True
    made = await requested(world, payment)
    store, at = world.return_ports.returns, world.clock.now()
    first = await store.lease(made.return_id, now=at, until=at + timedelta(seconds=10))
    later = at + timedelta(seconds=11)
    second = await store.lease(made.return_id, now=later, until=later + timedelta(seconds=10))
    assert first is not None
    assert second is not None

    first.complete(now=later)

    assert not await store.save(first)
    assert (await now(world, made)).state == "APPROVED"
    assert await returned_of(world, payment) == 0


async def test_a_possible_match_is_reviewed_and_made_when_cleared(world: World) -> None:
    made = await under_review(world)

    decision = DecideReview(payment_id=made.return_id, is_cleared=True, decided_by="carla")
    (answer,) = await world.api.decide_review([decision])

    assert isinstance(answer, PaymentView)
    assert answer.payment_id == made.payment_id
    assert (await now(world, made)).state == "COMPLETED"
    assert await world.balance(world.creditor) == (0, 0)


async def test_a_possible_match_that_is_blocked_stays_where_it_is(world: World) -> None:
    made = await under_review(world)

    decision = DecideReview(payment_id=made.return_id, is_cleared=False, decided_by="carla")
    await world.api.decide_review([decision])
    again = await world.api.decide_review([decision])

    ended = await now(world, made)
    assert (ended.state, ended.error_code) == ("REJECTED", "PAYMENT_REFUSED")
    assert isinstance(again[0], PaymentView)
    assert await world.balance(world.creditor) == (90_000, 0)


async def test_a_review_without_a_decision_expires(world: World) -> None:
    made = await under_review(world)
    world.clock.move(timedelta(hours=72))

    await do_due_returns(ports=world.return_ports)

    assert (await now(world, made)).state == "EXPIRED"
    assert await world.balance(world.creditor) == (90_000, 0)


async def test_a_decision_that_comes_before_the_return_has_heard_of_its_review_is_asked_for_again(world: World) -> None:
    payment = await paid(world)
    world.risk.is_down = True
    made = await requested(world, payment)

    early = DecideReview(payment_id=made.return_id, is_cleared=True, decided_by="carla")
    answers = await world.api.decide_review([early, DecideReview(payment_id=new_id(), is_cleared=True, decided_by="c")])

    assert isinstance(answers[0], Unavailable)
    assert isinstance(answers[1], PaymentNotFound)


async def under_review(world: World) -> ReturnView:
    payment = await paid(world)
    world.risk.listed_now = True
    made = await requested(world, payment)
    assert made.state == "UNDER_REVIEW"
    assert await world.balance(world.creditor) == (90_000, 0)
    return made


async def test_returns_are_listed_newest_first_by_payment_and_state(world: World) -> None:
    payment, other = await paid(world, "5000.00"), await paid(world)
    made = [await requested(world, payment, "1.00"), await requested(world, payment, "2.00")]
    waiting = await requested(world, payment, "3000.00")
    await requested(world, other)

    (first,) = await world.returns.list_returns([ListReturns(payment_id=payment.payment_id, limit=2)])
    assert isinstance(first, ReturnPage)
    (second,) = await world.returns.list_returns(
        [ListReturns(payment_id=payment.payment_id, limit=2, cursor=first.next_cursor)]
    )
    (waits,) = await world.returns.list_returns([ListReturns(state=ReturnState.AWAITING_APPROVAL)])

    assert [view.return_id for view in first.returns] == [waiting.return_id, made[1].return_id]
    assert second == ReturnPage(returns=[await now(world, made[0])], next_cursor=None)
    assert isinstance(waits, ReturnPage)
    assert waiting.return_id in {view.return_id for view in waits.returns}


async def test_the_note_is_kept_and_read_again(world: World) -> None:
    payment = await paid(world)

    made = await requested(world, payment, note="Customer called: paid twice.")

    assert (await now(world, made)).note == "Customer called: paid twice."


async def test_how_many_wait_and_for_how_long_is_measured(world: World) -> None:
    payment = await paid(world, "5000.00")
    await requested(world, payment)
    world.clock.move(timedelta(minutes=10))

    await measure_open_returns(ports=world.return_ports)

    labels = {"state": "AWAITING_APPROVAL"}
    assert REGISTRY.get_sample_value("payflow_returns_open", labels) == 1
    assert REGISTRY.get_sample_value("payflow_oldest_return_age_seconds", labels) == 600


async def test_its_steps_are_told_as_events_in_order(world: World) -> None:
    payment = await paid(world, "5000.00")
    waiting = await requested(world, payment)
    await decide(world, waiting)

    store = world.return_ports.returns
    if isinstance(store, FakeReturnStore):
        assert [(type_, version) for type_, subject, version in store.events if subject == waiting.return_id] == [
            ("return.requested", 1),
            ("return.approved", 2),
            ("return.completed", 3),
        ]


# What operators do with one payment, in any order.
ORDERS = st.lists(
    st.tuples(st.sampled_from(["request", "approve", "decline", "expire"]), st.integers(1, 60_000)), max_size=25
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(orders=ORDERS)
async def test_whatever_is_asked_for_never_more_than_the_payment_goes_back(orders: list[tuple[str, int]]) -> None:
    world = World(FakeConfirmStore(), FakeReturnStore())
    await world.open_accounts()
    payment = await paid(world, "2000.00")
    for what, amount_minor in orders:
        if what == "request":
            await request(world, asked(payment, f"{amount_minor // 100}.{amount_minor % 100:02d}"))
            continue
        (page,) = await world.returns.list_returns([ListReturns(state=ReturnState.AWAITING_APPROVAL)])
        if what == "expire":
            world.clock.move(timedelta(hours=72))
            await do_due_returns(ports=world.return_ports)
        elif isinstance(page, ReturnPage) and page.returns:
            await decide(world, page.returns[amount_minor % len(page.returns)], is_approved=what == "approve")

    (page,) = await world.returns.list_returns([ListReturns(payment_id=payment.payment_id, limit=200)])
    assert isinstance(page, ReturnPage)
    standing = sum(view.amount_minor for view in page.returns if view.state in ("AWAITING_APPROVAL", "COMPLETED"))
    returned = sum(view.amount_minor for view in page.returns if view.state == "COMPLETED")
    assert standing <= 200_000
    assert await returned_of(world, payment) == returned
    assert await world.balance(world.creditor) == (200_000 - returned, 0)
