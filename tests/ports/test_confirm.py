"""One suite for confirm over its in-memory store and over PostgreSQL, with a real ledger behind it in memory."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest

from payflow.contracts.account import (
    Account,
    AccountNotYours,
    AccountView,
    GetAccount,
    NewAccount,
    NewCustomer,
)
from payflow.contracts.agents import DEMO_AGENTS, AgentDirectory, read_agents
from payflow.contracts.confirm import (
    AwaitEnd,
    CancelPayment,
    Confirm,
    ConfirmPayment,
    Creditor,
    DecideReview,
    GetPayment,
    KeyReused,
    ListPayments,
    NotCancellable,
    PaymentInProgress,
    PaymentNotFound,
    PaymentState,
    PaymentView,
    RecordBankAnswer,
    SendCode,
    TransactionExists,
)
from payflow.contracts.otp import InvalidOtp, Otp
from payflow.contracts.partner_bank import BankStatus, PartnerBank, UnknownAgent
from payflow.contracts.returns import Returns
from payflow.contracts.risk import Risk
from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.account.api import AccountApi
from payflow.services.account.directory import ConfiguredBanks
from payflow.services.confirm.api import ConfirmApi, LocalEndings, SettleInBackground, measure_open_payments
from payflow.services.confirm.domain import Deadlines, FourEyes, Payment, ReturnDeadlines
from payflow.services.confirm.ports import Ports, ReturnPorts, ReturnStore, Store
from payflow.services.confirm.return_api import ReturnsApi
from payflow.services.confirm.return_store import PostgresReturns
from payflow.services.confirm.store import PostgresStore
from payflow.services.confirm.usecases.lifecycle import cancel_payments, do_what_is_due
from tests.builders import FixedClock, new_id
from tests.fakes import FakeAccountStore
from tests.fakes_confirm import FakeBank, FakeConfirmStore, FakeOtp, FakeRisk
from tests.fakes_returns import FakeReturnStore

IBAN = "DE08990100100000001001"


class World:
    """Confirm with a ledger, a risk, an otp and another bank around it; two customers with money."""

    def __init__(self, store: Store, return_store: ReturnStore | None = None) -> None:
        self.store, self.clock = store, FixedClock()
        self.risk, self.otp, self.bank, self.ledger = FakeRisk(), FakeOtp(), FakeBank(), FakeAccountStore()
        banks = ConfiguredBanks(AgentDirectory(read_agents(DEMO_AGENTS)))
        ids = UuidV7()
        account = AccountApi(store=self.ledger, banks=banks, clock=self.clock, ids=ids)
        self.operator: Account = in_process(Account, account, caller="gateway")
        self.ports = Ports(
            store=store,
            account=in_process(Account, account, caller="confirm"),
            risk=in_process(Risk, self.risk, caller="confirm"),
            otp=in_process(Otp, self.otp, caller="confirm"),
            bank=in_process(PartnerBank, self.bank, caller="confirm"),
            clock=self.clock,
            ids=ids,
            deadlines=Deadlines(),
            endings=LocalEndings(),
        )
        self.return_ports = ReturnPorts(
            returns=return_store or FakeReturnStore(),
            payments=store,
            account=self.ports.account,
            risk=self.ports.risk,
            clock=self.clock,
            ids=ids,
            deadlines=ReturnDeadlines(),
            four_eyes=FourEyes.parse("1000"),
        )
        self.background = SettleInBackground(self.ports)
        self.api = ConfirmApi(ports=self.ports, background=self.background, returns=self.return_ports)
        self.gateway: Confirm = in_process(Confirm, self.api, caller="gateway")
        self.returns: Returns = in_process(Returns, ReturnsApi(ports=self.return_ports), caller="gateway")
        self.customer, self.debtor, self.creditor = f"c{new_id().hex}", f"A{new_id().hex}", f"B{new_id().hex}"

    async def open_accounts(self, *, debtor_name: str = "Ada Byron") -> None:
        other = f"c{new_id().hex}"
        await self.operator.create_customers(
            [NewCustomer(customer_id=self.customer, name=debtor_name), NewCustomer(customer_id=other, name="Grace H.")]
        )
        opened = await self.operator.create_accounts(
            [
                NewAccount(
                    number=self.debtor, customer_id=self.customer, currency="USD", opening_balance_minor=10_000_000
                ),
                NewAccount(number=self.creditor, customer_id=other, currency="USD"),
                NewAccount(number=f"{self.creditor}E", customer_id=other, currency="EUR"),
            ]
        )
        assert all(isinstance(account, AccountView) for account in opened)

    def request(self, amount: str = "1000.00", *, key: str | None = None, to: str | None = None, **more: object):
        values = {
            "customer_id": self.customer,
            "idempotency_key": key or new_id().hex,
            "transaction_id": new_id().hex,
            "amount": amount,
            "currency": None,
            "debtor_account": self.debtor,
            "creditor_account": to or self.creditor,
            "traceparent": f"00-{new_id().hex}-00f067aa0ba902b7-01",
            **more,
        }
        otp = values.pop("otp", None)
        content = repr(sorted((name, value) for name, value in values.items() if name != "traceparent"))
        return ConfirmPayment(fingerprint=hashlib.sha256(content.encode()).digest(), otp=otp, **values)

    async def pay(self, request: ConfirmPayment) -> PaymentView | PayflowError:
        """As the gateway does: requests with a code go apart, and a code that is asked for is sent."""
        if request.otp is not None:
            (answer,) = await self.gateway.confirm_with_otp([request])
        else:
            (answer,) = await self.gateway.confirm([request])
        if isinstance(answer, PaymentView) and answer.state is PaymentState.AWAITING_OTP:
            (answer,) = await self.gateway.send_codes([SendCode(payment_id=answer.payment_id)])
        return answer

    async def leave_behind(self, request: ConfirmPayment) -> None:
        """Take a payment in and die before anything else is done about it."""
        self.risk.crashes = True
        with pytest.raises(RuntimeError):
            await self.pay(request)
        self.risk.crashes = False

    async def balance(self, number: str) -> tuple[int, int]:
        (view,) = await self.operator.get_accounts([GetAccount(number=number)])
        assert isinstance(view, AccountView)
        return view.posted_minor, view.held_minor

    async def end_of(self, view: PaymentView | PayflowError) -> PaymentView | PayflowError:
        assert isinstance(view, PaymentView), view
        (answer,) = await self.gateway.await_end([AwaitEnd(payment_id=view.payment_id, wait_s=0.3)])
        return answer

    async def due(self) -> int:
        return await do_what_is_due(ports=self.ports, background=self.background)


def with_otp(request: ConfirmPayment, code: str) -> ConfirmPayment:
    return ConfirmPayment(**{**{name: getattr(request, name) for name in request.__struct_fields__}, "otp": code})


@pytest.fixture(params=["memory", "postgres"])
async def world(
    request: pytest.FixtureRequest, connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> AsyncIterator[World]:
    store: Store = FakeConfirmStore()
    returns: ReturnStore = FakeReturnStore()
    if request.param == "postgres":
        database = await connect_as("confirm")
        # What other tests left due is none of this test's business.
        store = PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
        returns = PostgresReturns(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
        await database.execute(
            "UPDATE transactions SET state = 'EXPIRED', due_at = NULL, wake_at = NULL, error_code = 'X' "
            "WHERE due_at IS NOT NULL"
        )
        await database.execute(
            "UPDATE payment_return SET state = 'EXPIRED', due_at = NULL, error_code = 'X' WHERE due_at IS NOT NULL"
        )
    made = World(store, returns)
    await made.open_accounts()
    yield made
    await made.background.finish()


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


async def test_without_one_time_passwords_other_payments_go_on(world: World) -> None:
    world.otp.is_down = True

    small = await world.pay(world.request())
    large = await world.pay(world.request("15000.00"))

    assert small.state == "COMPLETED"
    assert isinstance(large, Unavailable)


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
