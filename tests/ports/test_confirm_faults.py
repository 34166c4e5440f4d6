"""Where confirm's database or another process comes between a payment and its end: over memory and over PostgreSQL."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from payflow.contracts.account import Booked, Transfer
from payflow.contracts.confirm import CancelPayment, Creditor, GetPayment, NotCancellable, PaymentState, PaymentView
from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.services.confirm.api import ConfirmApi, SettleInBackground
from payflow.services.confirm.domain import Payment
from payflow.services.confirm.ports import Ports
from payflow.services.confirm.usecases.lifecycle import cancel_payments
from tests.builders_confirm import IBAN, World, world

__all__ = ["world"]


class Before:
    """A store before one of whose operations something happens."""

    def __init__(self, store: Any, operation: str, happens: Callable[..., Awaitable[None]]) -> None:
        self._store, self._operation, self._happens = store, operation, happens

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._store, name)
        if name != self._operation:
            return call

        async def after_it_has_happened(*args: Any, **more: Any) -> Any:
            await self._happens(*args, **more)
            return await call(*args, **more)

        return after_it_has_happened


async def gone(*args: object, **more: object) -> None:
    raise Unavailable("the database cannot be reached")


def a_process(world: World, *, operation: str, happens: Callable[..., Awaitable[None]]) -> tuple[ConfirmApi, Ports]:
    ports = replace(world.ports, store=Before(world.store, operation, happens))
    return ConfirmApi(ports=ports, background=SettleInBackground(ports), returns=world.return_ports), ports


async def stands(world: World, payment_id: UUID) -> PaymentView:
    (found,) = await world.gateway.get([GetPayment(transaction_id=str(payment_id), customer_id=None)])
    assert isinstance(found, PaymentView), found
    return found


async def test_a_payment_that_was_taken_over_before_it_was_stored_as_submitted_does_not_go_to_the_other_bank(
    world: World,
) -> None:
    async def is_taken_over(payments: Sequence[Payment], *, now: datetime) -> None:
        later = now + timedelta(seconds=11)
        await world.store.lease([one.payment_id for one in payments], now=later, until=later + timedelta(seconds=10))

    api, _ = a_process(world, operation="save", happens=is_taken_over)

    (answer,) = await api.confirm([world.request(to=IBAN, creditor=Creditor(name="Grace Hopper"))])
    await api._background.finish()

    assert getattr(answer, "code", "") == "PAYMENT_IN_PROGRESS"
    assert world.bank.tokens == {}


@pytest.mark.parametrize("operation", ["save", "return_leases"])
async def test_a_payment_that_is_stored_is_not_told_as_if_nothing_had_happened(world: World, operation: str) -> None:
    world.risk.is_down = operation == "return_leases"
    api, _ = a_process(world, operation=operation, happens=gone)

    with pytest.raises(UnknownOutcome):
        await api.confirm([world.request()])


async def test_a_repeat_that_cannot_be_looked_up_does_not_keep_its_neighbours_back(world: World) -> None:
    known, new = world.request(), world.request()
    await world.pay(known)
    api, _ = a_process(world, operation="find", happens=gone)

    repeated, made = await api.confirm([known, new])

    assert isinstance(repeated, Unavailable)
    assert isinstance(made, PaymentView)
    assert made.state is PaymentState.COMPLETED


async def test_a_cancellation_that_cannot_be_stored_is_told_as_unknown_and_to_its_own_customer_only(
    world: World,
) -> None:
    waiting, done = world.request("15000.00"), world.request("15000.00")
    for request in (waiting, done):
        await world.pay(request)
    wishes = [CancelPayment(customer_id=world.customer, transaction_id=one.transaction_id) for one in (done, waiting)]
    await cancel_payments(commands=wishes[:1], ports=world.ports)
    _, ports = a_process(world, operation="save", happens=gone)

    cancelled, unknown = await cancel_payments(commands=wishes, ports=ports)

    assert isinstance(cancelled, PaymentView)
    assert cancelled.state is PaymentState.CANCELLED
    assert isinstance(unknown, UnknownOutcome)


async def test_a_scheduled_payment_that_a_process_with_a_fast_clock_has_made_is_completed(world: World) -> None:
    """Its day had come by that clock, and its answer was lost; by ours the payment still waits."""
    tomorrow = world.clock.now() + timedelta(days=1)
    order = await world.pay(world.request(execute_at=tomorrow))
    assert isinstance(order, PaymentView)
    (payment,) = (await world.store.by_ids([order.payment_id])).values()
    assert payment.debtor_account_id is not None
    assert payment.creditor_account_id is not None
    early = Transfer(
        payment_id=payment.payment_id,
        fencing_token=payment.fencing_token,
        debtor_account_id=payment.debtor_account_id,
        creditor_account_id=payment.creditor_account_id,
        amount_minor=100_000,
        currency="USD",
        captures_hold=False,
    )
    (booked,) = await world.ports.account.transfer([early])

    wish = CancelPayment(customer_id=world.customer, transaction_id=order.transaction_id)
    (answer,) = await world.gateway.cancel([wish])

    assert isinstance(booked, Booked)
    assert isinstance(answer, NotCancellable)
    assert (await stands(world, order.payment_id)).state is PaymentState.COMPLETED
    assert await world.balance(world.debtor) == (9_900_000, 0)
