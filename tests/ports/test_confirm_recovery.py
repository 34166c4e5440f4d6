"""What confirm does about payments that were left behind, overtaken, asked about or forgotten."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from payflow.contracts.confirm import (
    CancelPayment,
    Creditor,
    GetPayment,
    ListPayments,
    PaymentInProgress,
    PaymentNotFound,
    PaymentState,
)
from payflow.kernel.errors import UnknownOutcome
from payflow.services.confirm.api import measure_open_payments
from payflow.services.confirm.domain import Payment
from payflow.services.confirm.usecases.lifecycle import cancel_payments
from tests.builders_confirm import IBAN, World, with_otp
from tests.builders_confirm import world as world


async def test_a_payment_that_its_process_left_behind_is_taken_over(world: World) -> None:
    request = world.request()
    await world.leave_behind(request)
    world.clock.move(timedelta(seconds=11))

    taken = await world.due()

    assert taken == 1
    assert (await world.pay(request)).state == "COMPLETED"


async def test_a_process_that_was_overtaken_cannot_write_any_more(world: World) -> None:
    await world.leave_behind(world.request())
    world.clock.move(timedelta(seconds=11))
    now = world.clock.now()
    (stale,) = await world.store.lease_due(now=now, until=now + timedelta(seconds=10), limit=10)
    world.clock.move(timedelta(seconds=11))
    (owner,) = await world.store.lease_due(
        now=world.clock.now(), until=world.clock.now() + timedelta(seconds=10), limit=10
    )

    stale.move(PaymentState.REJECTED, now=now)
    stale.leased_until, stale.due_at, stale.error_code = None, None, "X"
    saved = await world.store.save([stale], now=now)

    assert saved == set()
    assert owner.fencing_token == stale.fencing_token + 1
    assert (await world.store.by_ids([stale.payment_id]))[stale.payment_id].state == "RECEIVED"


async def test_a_process_that_was_overtaken_sends_nothing_to_the_other_bank(world: World) -> None:
    save, far = world.store.save, timedelta(hours=1)

    async def overtaken(payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        await world.store.lease([payment.payment_id for payment in payments], now=now + far, until=now + 2 * far)
        return await save(payments, now=now)

    world.store.save = overtaken
    answer = await world.pay(world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau")))
    await world.background.finish()

    assert isinstance(answer, PaymentInProgress)
    assert world.bank.paid == {}


async def test_every_step_of_a_payment_is_kept(world: World) -> None:
    request = world.request("15000.00")
    await world.pay(request)
    await world.pay(with_otp(request, "123456"))

    (history,) = await world.gateway.history(
        [GetPayment(transaction_id=request.transaction_id, customer_id=world.customer)]
    )

    assert [step.target for step in history.transitions] == ["RECEIVED", "AWAITING_OTP", "APPROVED", "COMPLETED"]
    assert [step.version for step in history.transitions] == [1, 2, 3, 4]


async def test_customers_see_their_own_payments_only_newest_first(world: World) -> None:
    requests = [world.request() for _ in range(3)]
    for request in requests:
        await world.pay(request)

    (first,) = await world.gateway.list_payments([ListPayments(customer_id=world.customer, limit=2)])
    (second,) = await world.gateway.list_payments(
        [ListPayments(customer_id=world.customer, limit=2, cursor=first.next_cursor)]
    )
    (foreign,) = await world.gateway.get(
        [GetPayment(transaction_id=requests[0].transaction_id, customer_id="somebody else")]
    )

    shown = [payment.transaction_id for payment in (*first.payments, *second.payments)]
    assert shown == [request.transaction_id for request in reversed(requests)]
    assert second.next_cursor is None
    assert isinstance(foreign, PaymentNotFound)


async def test_operators_find_a_payment_by_its_payment_id(world: World) -> None:
    view = await world.pay(world.request())

    (found, missing, nonsense) = await world.gateway.get(
        [GetPayment(transaction_id=text, customer_id=None) for text in (str(view.payment_id), str(UUID(int=1)), "x")]
    )

    assert found == view
    assert [type(answer) for answer in (missing, nonsense)] == [PaymentNotFound, PaymentNotFound]


async def test_a_batch_answers_each_item_by_itself(world: World) -> None:
    good, poor, foreign, risky = (
        world.request(),
        world.request("0"),
        world.request(debtor_account=world.creditor),
        world.request("15000.00"),
    )

    answers = await world.api.confirm([good, poor, foreign, risky])

    assert [getattr(answer, "state", type(answer).__name__) for answer in answers] == [
        "COMPLETED",
        "REJECTED",
        "AccountNotYours",
        "AWAITING_OTP",
    ]


async def test_unfinished_payments_are_counted_by_state_with_the_age_of_the_oldest(world: World) -> None:
    before = await world.store.open_by_state()
    await world.pay(world.request("15000.00"))
    since = world.clock.now()
    world.clock.move(timedelta(minutes=1))
    await world.pay(world.request("15000.00"))
    await world.pay(world.request())

    found = await world.store.open_by_state()
    await measure_open_payments(ports=world.ports)

    count_before, since_before = before.get(PaymentState.AWAITING_OTP, (0, since))
    assert found[PaymentState.AWAITING_OTP] == (count_before + 2, min(since, since_before))
    assert PaymentState.COMPLETED not in found


class _DeafAfter:
    """A service whose answers to one operation get lost: it has done what it was asked, and nobody hears of it."""

    def __init__(self, service: object, operation: str) -> None:
        self._service, self._operation = service, operation

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._service, name)

        async def lost(items: list[Any]) -> list[Any]:
            return [UnknownOutcome("no answer") for _ in await call(items)]

        return lost if name == self._operation else call


async def test_a_cancellation_that_the_ledger_heard_and_nobody_stored_is_brought_to_its_end(world: World) -> None:
    request = world.request("15000.00")
    await world.pay(request)
    deaf = replace(world.ports, account=_DeafAfter(world.ports.account, "release_hold"))
    command = CancelPayment(customer_id=world.customer, transaction_id=request.transaction_id)
    lost = await cancel_payments(commands=[command], ports=deaf)
    world.clock.move(timedelta(seconds=11))

    answers = [await world.pay(msgspec.structs.replace(request, otp="123456")) for _ in range(2)]

    assert [type(answer) for answer in lost] == [UnknownOutcome]
    assert [(answer.state, answer.error_code) for answer in answers] == [("REJECTED", "PAYMENT_CANCELLED")] * 2
    assert await world.balance(world.debtor) == (10_000_000, 0)
