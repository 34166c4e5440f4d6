"""Payments that are ordered now and made later: over memory and over PostgreSQL."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from payflow.contracts.confirm import (
    CancelPayment,
    Creditor,
    DecideReview,
    GetPayment,
    NotCancellable,
    PaymentInProgress,
    PaymentState,
    PaymentView,
)
from payflow.kernel.errors import PayflowError
from payflow.services.confirm.usecases.lifecycle import do_what_is_due
from tests.builders import NOON
from tests.builders_confirm import World, with_otp, world

__all__ = ["world"]

TOMORROW = NOON + timedelta(days=1)


async def order(world: World, amount: str = "1000.00", **more: object) -> PaymentView:
    view = await world.pay(world.request(amount, execute_at=TOMORROW, **more))
    assert isinstance(view, PaymentView), view
    return view


async def now(world: World, view: PaymentView) -> PaymentView:
    (found,) = await world.gateway.get([GetPayment(transaction_id=str(view.payment_id), customer_id=None)])
    assert isinstance(found, PaymentView), found
    return found


async def cancel(world: World, view: PaymentView) -> PaymentView | PayflowError:
    command = CancelPayment(customer_id=world.customer, transaction_id=view.transaction_id)
    (answer,) = await world.gateway.cancel([command])
    return answer


async def test_a_payment_for_tomorrow_is_checked_now_and_holds_nothing(world: World) -> None:
    view = await order(world)

    assert (view.state, view.execute_at, view.risk_level) == ("SCHEDULED", TOMORROW, "LOW")
    assert await world.balance(world.debtor) == (10_000_000, 0)
    assert await world.due() == 0


async def test_its_day_comes_and_it_is_made_once(world: World) -> None:
    view = await order(world)
    world.clock.move(timedelta(days=1))

    taken = await asyncio.gather(world.due(), world.due())

    assert sum(taken) == 1
    assert (await now(world, view)).state == "COMPLETED"
    assert await world.balance(world.creditor) == (100_000, 0)
    steps = await world.store.transitions([view.payment_id])
    assert [step.target for step in steps[view.payment_id]] == [
        "RECEIVED",
        "APPROVED",
        "SCHEDULED",
        "APPROVED",
        "COMPLETED",
    ]


async def test_a_repeat_of_the_order_is_told_how_it_stands(world: World) -> None:
    request = world.request(execute_at=TOMORROW)

    first, second = await world.pay(request), await world.pay(request)

    assert first == second


@pytest.mark.parametrize("away", [timedelta(0), timedelta(seconds=-1), timedelta(days=366)])
async def test_a_time_that_is_past_or_too_far_ahead_is_refused_for_good(world: World, away: timedelta) -> None:
    view = await world.pay(world.request(execute_at=NOON + away))

    assert isinstance(view, PaymentView)
    assert (view.state, view.error_code) == ("REJECTED", "INVALID_EXECUTION_TIME")


async def test_the_money_must_be_there_on_its_day_only(world: World) -> None:
    view = await order(world, "9000.00")
    await world.gateway.confirm([world.request("9900.00") for _ in range(10)])
    world.clock.move(timedelta(days=1))

    await world.due()

    ended = await now(world, view)
    assert (ended.state, ended.error_code) == ("REJECTED", "INSUFFICIENT_FUNDS")
    assert await world.balance(world.debtor) == (100_000, 0)


async def test_the_code_belongs_to_the_order_and_is_not_asked_for_again(world: World) -> None:
    request = world.request("20000.00", execute_at=TOMORROW)
    waiting = await world.pay(request)
    assert isinstance(waiting, PaymentView)
    assert waiting.state == "AWAITING_OTP"

    ordered = await world.pay(with_otp(request, "123456"))
    world.clock.move(timedelta(days=1))
    await world.due()

    assert isinstance(ordered, PaymentView)
    assert ordered.state == "SCHEDULED"
    assert (await now(world, waiting)).state == "COMPLETED"


async def test_a_customer_cancels_until_it_starts(world: World) -> None:
    view = await order(world)

    cancelled = await cancel(world, view)
    world.clock.move(timedelta(days=1))

    assert isinstance(cancelled, PaymentView)
    assert cancelled.state == "CANCELLED"
    assert await world.due() == 0
    assert await world.balance(world.creditor) == (0, 0)


async def test_of_a_cancellation_and_its_day_at_once_one_wins(world: World) -> None:
    orders = [await order(world, "10.00") for _ in range(6)]
    world.clock.move(timedelta(days=1))

    answers, _ = await asyncio.gather(
        asyncio.gather(*(cancel(world, view) for view in orders)),
        do_what_is_due(ports=world.ports, background=world.background),
    )

    ended = [await now(world, view) for view in orders]
    for answer, view in zip(answers, ended, strict=True):
        assert view.state in ("CANCELLED", "COMPLETED")
        if view.state == "CANCELLED":
            assert isinstance(answer, PaymentView)
        else:
            assert isinstance(answer, PaymentInProgress | NotCancellable)
    paid = sum(view.state == "COMPLETED" for view in ended)
    assert await world.balance(world.creditor) == (1000 * paid, 0)


async def test_who_is_listed_by_then_is_reviewed_with_funds_held_and_paid_when_cleared(world: World) -> None:
    view = await order(world)
    world.risk.newly_listed.add(view.payment_id)
    world.clock.move(timedelta(days=1))

    await world.due()
    reviewed = await now(world, view)
    held = await world.balance(world.debtor)
    decision = DecideReview(payment_id=view.payment_id, is_cleared=True, decided_by="officer")
    await world.api.decide_review([decision])

    assert reviewed.state == "UNDER_REVIEW"
    assert held == (10_000_000, 100_000)
    assert (await now(world, view)).state == "COMPLETED"


async def test_an_order_that_is_reviewed_before_its_day_holds_nothing_and_goes_on_waiting(world: World) -> None:
    view = await order(world, creditor=Creditor(name="Listed Person"))
    held = await world.balance(world.debtor)

    decision = DecideReview(payment_id=view.payment_id, is_cleared=True, decided_by="officer")
    (cleared,) = await world.api.decide_review([decision])
    world.clock.move(timedelta(days=1))
    await world.due()

    assert view.state == "UNDER_REVIEW"
    assert held == (10_000_000, 0)
    assert isinstance(cleared, PaymentView)
    assert cleared.state == "SCHEDULED"
    assert (await now(world, view)).state == "COMPLETED"


async def test_a_customer_who_is_no_longer_identified_is_refused_on_the_day(world: World) -> None:
    view = await order(world)
    world.risk.unidentified.add(world.customer)
    world.clock.move(timedelta(days=1))

    await world.due()

    ended = await now(world, view)
    assert (ended.state, ended.error_code) == ("REJECTED", "PAYMENT_REFUSED")


async def test_without_screening_nothing_is_paid_and_it_is_tried_again_for_a_day(world: World) -> None:
    late, lost = await order(world), await order(world)
    world.risk.is_down = True
    world.clock.move(timedelta(days=1))
    await world.due()
    assert {(await now(world, view)).state for view in (late, lost)} == {PaymentState.SCHEDULED}
    assert await world.due() == 0
    await cancel(world, lost)

    world.risk.is_down = False
    world.clock.move(timedelta(seconds=11))
    await world.due()

    assert (await now(world, late)).state == "COMPLETED"


async def test_what_could_not_be_made_within_a_day_expires(world: World) -> None:
    view = await order(world)
    world.clock.move(timedelta(days=2))

    await world.due()

    ended = await now(world, view)
    assert (ended.state, ended.error_code) == ("EXPIRED", "PAYMENT_EXPIRED")
