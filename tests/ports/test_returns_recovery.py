"""Returns that are interrupted, reviewed, listed and measured; and never more than the payment, whatever comes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from payflow.contracts.account import (
    Booked,
    Transfer,
)
from payflow.contracts.confirm import (
    DecideReview,
    PaymentNotFound,
    PaymentView,
)
from payflow.contracts.returns import (
    ListReturns,
    ReturnPage,
    ReturnState,
    ReturnView,
)
from payflow.kernel.errors import Unavailable
from payflow.services.confirm.return_api import measure_open_returns
from payflow.services.confirm.usecases.returns import do_due_returns
from tests.builders import new_id
from tests.builders_confirm import World
from tests.builders_confirm import world as world
from tests.builders_returns import asked, decide, now, paid, request, requested, returned_of
from tests.fakes_confirm import FakeConfirmStore
from tests.fakes_returns import FakeReturnStore


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
