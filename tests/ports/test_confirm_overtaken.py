"""What the model checker found by looking at every order of events (docs/model-checking.md), played with the code."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from payflow.contracts.account import PlaceHold, ReleaseHold
from payflow.contracts.confirm import Creditor, GetPayment, PaymentState, PaymentView
from payflow.services.confirm.api import SettleInBackground
from payflow.services.confirm.usecases.confirm import confirm_payments
from payflow.services.confirm.usecases.lifecycle import do_what_is_due
from tests.builders import NOON
from tests.builders_confirm import IBAN, World, world

__all__ = ["world"]


class _StoppedAfter:
    """A service with whose answer to one operation the calling process stands still for a while."""

    def __init__(self, service: object, operation: str, meanwhile: Any) -> None:
        self._service, self._operation, self._meanwhile = service, operation, meanwhile

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._service, name)

        async def slow(items: list[Any]) -> list[Any]:
            answers = await call(items)
            await self._meanwhile()
            return answers

        return slow if name == self._operation else call


async def _state(world: World, payment_id: object) -> PaymentState:
    (found,) = await world.gateway.get([GetPayment(transaction_id=str(payment_id), customer_id=None)])
    assert isinstance(found, PaymentView)
    return found.state


@pytest.mark.parametrize("driver", ["request", "recovery"])
async def test_a_process_that_was_overtaken_before_it_stored_submitted_sends_nothing_out(
    world: World, driver: str
) -> None:
    async def another_process_ends_it() -> None:
        world.clock.move(timedelta(seconds=61))
        await world.due()

    stopped = replace(world.ports, account=_StoppedAfter(world.ports.account, "place_hold", another_process_ends_it))
    background = SettleInBackground(stopped)
    request = world.request(to=IBAN, creditor=Creditor(name="Erika"))
    if driver == "request":
        await confirm_payments(commands=[request], ports=stopped, background=background)
    else:
        await world.leave_behind(request)
        world.clock.move(timedelta(seconds=11))
        await do_what_is_due(ports=stopped, background=background)
    await background.finish()

    answer = await world.pay(request)

    assert isinstance(answer, PaymentView)
    assert answer.state == "REJECTED"
    assert world.bank.paid == {}
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_release_that_comes_late_cannot_free_the_funds_of_a_submitted_payment(world: World) -> None:
    """A process asks for a release and is cut off; the payment is taken over and submitted; then that arrives."""
    request = world.request(to=IBAN, creditor=Creditor(name="Erika"))
    await world.leave_behind(request)
    world.clock.move(timedelta(seconds=11))
    now = world.clock.now()
    (first,) = await world.store.lease_due(now=now, until=now + timedelta(seconds=10), limit=1)
    assert first.debtor_account_id is not None
    hold = PlaceHold(
        payment_id=first.payment_id,
        fencing_token=first.fencing_token,
        account_id=first.debtor_account_id,
        amount_minor=100_000,
        currency="USD",
    )
    await world.ports.account.place_hold([hold])
    world.bank.status = world.bank.status.UNKNOWN
    world.clock.move(timedelta(seconds=11))
    await world.pay(request)

    late = ReleaseHold(payment_id=first.payment_id, fencing_token=first.fencing_token, reason="rejected")
    await world.ports.account.release_hold([late])

    assert await _state(world, first.payment_id) == "SUBMITTED"
    assert await world.balance(world.debtor) == (10_000_000, 100_000)


@pytest.mark.parametrize("to", [None, IBAN])
async def test_a_hold_that_nobody_stored_is_used_up_when_the_review_turned_out_not_to_be_needed(
    world: World, to: str | None
) -> None:
    """On its day a payment is held for review, by a process that dies; then its case is cleared before it is stored."""

    async def dies() -> None:
        raise RuntimeError("the process dies here")

    request = world.request(to=to, creditor=Creditor(name="Erika"), execute_at=NOON + timedelta(days=1))
    view = await world.pay(request)
    assert isinstance(view, PaymentView)
    world.risk.newly_listed.add(view.payment_id)
    world.clock.move(timedelta(days=1))
    dying = replace(world.ports, account=_StoppedAfter(world.ports.account, "place_hold", dies))
    with pytest.raises(RuntimeError):
        await do_what_is_due(ports=dying, background=SettleInBackground(dying))
    assert await world.balance(world.debtor) == (10_000_000, 100_000)

    world.risk.newly_listed.clear()
    world.clock.move(timedelta(seconds=11))
    await world.due()
    await world.background.finish()

    assert await _state(world, view.payment_id) == "COMPLETED"
    assert await world.balance(world.debtor) == (9_900_000, 0)
