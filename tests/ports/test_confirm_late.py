"""What comes too late or beside: a code after its deadline, a decision on what has moved on, a bank that has gone."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from payflow.contracts.account import Account, GetCustomer, ReleaseHold
from payflow.contracts.agents import AgentDirectory
from payflow.contracts.confirm import (
    CancelPayment,
    Confirm,
    Creditor,
    DecideReview,
    PaymentInProgress,
    PaymentView,
    RecordBankAnswer,
)
from payflow.contracts.partner_bank import BankStatus
from payflow.kernel.errors import UnknownOutcome
from payflow.platform.ids import UuidV7
from payflow.platform.rpc import in_process
from payflow.platform.rpc.client import NotInContract
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.confirm.api import SettleInBackground
from payflow.services.confirm.domain import Payment
from payflow.services.confirm.usecases.confirm import confirm_payments
from payflow.services.confirm.usecases.lifecycle import do_what_is_due
from tests.builders_confirm import IBAN, World, with_otp
from tests.builders_confirm import world as world


class Nobody:
    """A background whose process died before it did anything."""

    def start(self, payments: Sequence[Payment]) -> None:
        pass


def _officer(world: World) -> Confirm:
    return in_process(Confirm, world.api, caller="ofac")


async def test_a_code_that_comes_after_the_deadline_pays_nothing_although_nobody_has_ended_the_payment_yet(
    world: World,
) -> None:
    request = world.request("15000.00")
    waiting = await world.pay(request)
    assert isinstance(waiting, PaymentView)
    world.clock.move(timedelta(minutes=15))

    late = await world.pay(with_otp(request, "123456"))

    assert isinstance(late, PaymentView)
    assert (late.state, late.error_code) == ("EXPIRED", "PAYMENT_EXPIRED")
    assert await world.balance(world.debtor) == (10_000_000, 0)
    assert await world.due() == 0


async def test_a_code_just_before_the_deadline_pays(world: World) -> None:
    request = world.request("15000.00")
    await world.pay(request)
    world.clock.move(timedelta(minutes=14, seconds=59))

    paid = await world.pay(with_otp(request, "123456"))

    assert isinstance(paid, PaymentView)
    assert paid.state == "COMPLETED"


@pytest.mark.parametrize("is_cleared", [True, False])
async def test_a_review_decided_after_its_deadline_has_expired(world: World, is_cleared: bool) -> None:
    world.risk.listed_now = True
    request = world.request()
    view = await world.pay(request)
    assert isinstance(view, PaymentView)
    assert view.state == "UNDER_REVIEW"
    world.clock.move(timedelta(hours=72))

    (decided,) = await _officer(world).decide_review(
        [DecideReview(payment_id=view.payment_id, is_cleared=is_cleared, decided_by="officer")]
    )

    assert isinstance(decided, PaymentView)
    assert decided.state == "EXPIRED"
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_cancellation_that_comes_too_late_does_not_keep_the_bank_s_word_waiting(world: World) -> None:
    world.bank.status = BankStatus.UNKNOWN
    day = world.clock.now() + timedelta(hours=1)
    request = world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"), execute_at=day)
    scheduled = await world.pay(request)
    assert isinstance(scheduled, PaymentView)
    by_transaction = world.store.by_transaction

    async def while_it_is_submitted(keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Payment]:
        found = {key: copy.copy(payment) for key, payment in (await by_transaction(keys)).items()}
        world.clock.move(timedelta(hours=1, seconds=1))
        await world.due()
        await world.background.finish()
        return found

    world.store.by_transaction = while_it_is_submitted
    command = CancelPayment(customer_id=world.customer, transaction_id=request.transaction_id)
    (cancelled,) = await world.gateway.cancel([command])
    answer = RecordBankAnswer(payment_id=scheduled.payment_id, is_accepted=True, reason_code=None)
    (recorded,) = await in_process(Confirm, world.api, caller="partner_bank").record_bank_answer([answer])

    assert isinstance(cancelled, PaymentInProgress)
    assert isinstance(recorded, PaymentView)
    assert recorded.state == "COMPLETED"


async def test_a_bank_that_left_the_directory_after_submission_does_not_keep_the_payment_for_ever(
    world: World,
) -> None:
    request = world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"))
    (view,) = await confirm_payments(commands=[request], ports=world.ports, background=Nobody())
    assert isinstance(view, PaymentView)
    assert view.state == "SUBMITTED"
    nowhere = ConfiguredBanks(AgentDirectory(()))
    account = AccountApi(store=world.ledger, banks=nowhere, clock=world.clock, ids=UuidV7())
    ports = replace(world.ports, account=in_process(Account, account, caller="confirm"))
    # Partner_bank knows no way to the bank either, and says so of what it has not sent.
    world.bank.status = BankStatus.REJECTED
    world.clock.move(timedelta(seconds=11))

    background = SettleInBackground(ports)
    await do_what_is_due(ports=ports, background=background)
    await background.finish()

    (ended,) = (await world.store.by_ids([view.payment_id])).values()
    assert (ended.state, ended.error_code) == ("REJECTED", "PAYMENT_REFUSED")
    assert await world.balance(world.debtor) == (10_000_000, 0)


async def test_a_payment_that_was_taken_over_is_sent_with_its_debtor_s_name(world: World) -> None:
    request = world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"))
    await confirm_payments(commands=[request], ports=world.ports, background=Nobody())
    world.clock.move(timedelta(seconds=11))

    await world.due()
    await world.background.finish()

    assert [(one.debtor_name, one.creditor_name) for one in world.bank.sent] == [("Ada Byron", "Erika Musterfrau")]


class AccountBefore:
    """Account of a release that lets confirm ask for no customer."""

    def __init__(self, account: Any) -> None:
        self._account = account

    def __getattr__(self, name: str) -> Any:
        return getattr(self._account, name)

    async def get_customers(self, queries: list[GetCustomer]) -> list[NotInContract]:
        return [NotInContract("account does not know this call.") for _ in queries]


async def test_a_payment_whose_debtor_account_cannot_name_yet_rests_and_is_sent_once_it_can(world: World) -> None:
    request = world.request(to=IBAN, creditor=Creditor(name="Erika Musterfrau"))
    await confirm_payments(commands=[request], ports=world.ports, background=Nobody())
    now = world.ports
    before = replace(now, account=AccountBefore(now.account))
    world.clock.move(timedelta(seconds=11))
    background = SettleInBackground(before)
    await do_what_is_due(ports=before, background=background)
    await background.finish()
    sent_before = list(world.bank.sent)

    world.clock.move(timedelta(minutes=5))
    await world.due()
    await world.background.finish()

    assert sent_before == []
    assert [one.debtor_name for one in world.bank.sent] == ["Ada Byron"]


@pytest.mark.parametrize(
    ("reason", "code"),
    [("cancelled", "PAYMENT_CANCELLED"), ("expired", "PAYMENT_EXPIRED"), ("rejected", "PAYMENT_REFUSED")],
)
async def test_an_end_that_only_the_ledger_knows_of_is_told_as_what_it_was(
    world: World, reason: str, code: str
) -> None:
    world.risk.listed_now = True
    view = await world.pay(world.request())
    assert isinstance(view, PaymentView)
    released = ReleaseHold(payment_id=view.payment_id, fencing_token=1, reason=reason)
    await world.ports.account.release_hold([released])

    (decided,) = await _officer(world).decide_review(
        [DecideReview(payment_id=view.payment_id, is_cleared=True, decided_by="officer")]
    )

    assert isinstance(decided, PaymentView)
    assert (decided.state, decided.error_code) == ("REJECTED", code)


async def test_without_one_time_passwords_other_payments_go_on(world: World) -> None:
    world.otp.is_down = True

    small = await world.pay(world.request())
    request = world.request("15000.00")
    large = await world.pay(request)
    world.otp.is_down = False
    again = await world.pay(request)

    assert small.state == "COMPLETED"
    # The payment is stored: "nothing happened" would be untrue.
    assert isinstance(large, UnknownOutcome)
    assert again.state == "AWAITING_OTP"
