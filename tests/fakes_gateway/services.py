"""The services behind the gateway in memory, as far as it asks them."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec

from payflow.contracts.account import (
    AccountList,
    AccountNotFound,
    AccountState,
    AccountView,
    CustomerNotFound,
    CustomerState,
    CustomerView,
    EntryCursor,
    EntryLine,
    EntryPage,
    GetAccount,
    GetCustomer,
    ListAccounts,
    ListEntries,
)
from payflow.contracts.confirm import (
    AwaitEnd,
    CancelPayment,
    ConfirmPayment,
    GetPayment,
    ListPayments,
    PaymentHistory,
    PaymentNotFound,
    PaymentPage,
    PaymentState,
    PaymentView,
    SendCode,
    TransitionView,
)
from payflow.contracts.operation import Answers
from payflow.contracts.sides import ListSides, PaymentSides, SidesList
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import Money
from tests.builders import NOON, new_id


class FakeSides:
    """Who paid whom, as it was told; `sides_failure` is answered instead while it is set;
    without `sides_are_complete` there is more that cannot be read. Notes what was asked.

    An answer waits for the others of `sides_barrier`, where there is one.
    """

    def __init__(self) -> None:
        self.sides: dict[UUID, PaymentSides] = {}
        self.sides_failure: PayflowError | None = None
        self.sides_are_complete = True
        self.sides_asked: list[ListSides] = []
        self.sides_barrier: asyncio.Barrier | None = None

    async def list_sides(self, queries: list[ListSides]) -> Answers[SidesList]:
        self.sides_asked += queries
        if self.sides_barrier is not None:
            await self.sides_barrier.wait()
        if self.sides_failure is not None:
            return [self.sides_failure for _ in queries]
        return [
            SidesList(
                sides=[self.sides[id] for id in query.payment_ids if id in self.sides],
                is_complete=self.sides_are_complete,
            )
            for query in queries
        ]


class FakeConfirm(FakeSides):
    """Payments in memory. `outcome` decides what becomes of a new one; one key has one payment."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[ConfirmPayment] = []
        self.waits: list[AwaitEnd] = []
        self.payments: dict[tuple[str, str], PaymentView] = {}
        self.transitions: dict[UUID, list[TransitionView]] = {}
        self.outcome = PaymentState.COMPLETED
        self.failure: PayflowError | None = None
        self.changes: dict[str, Any] = {}
        self.later: PaymentState | None = None

    async def confirm(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]:
        self.commands += commands
        if self.failure is not None:
            return [self.failure for _ in commands]
        return [self._payment(command) for command in commands]

    async def confirm_with_otp(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]:
        return await self.confirm(commands)

    async def send_codes(self, commands: list[SendCode]) -> Answers[PaymentView]:
        by_id = {payment.payment_id: payment for payment in self.payments.values()}
        return [by_id.get(command.payment_id, PaymentNotFound()) for command in commands]

    def _payment(self, command: ConfirmPayment) -> PaymentView:
        place = (command.customer_id, command.transaction_id)
        if place not in self.payments:
            values: dict[str, Any] = {
                "transaction_id": command.transaction_id,
                "customer_id": command.customer_id,
                "amount": command.amount,
                "amount_minor": Money.from_decimal(command.amount, "USD").minor_units,
                "trace_id": command.traceparent[3:35],
                "debtor_account": command.debtor_account,
                "creditor_account": command.creditor_account,
                "execute_at": command.execute_at,
                **self.changes,
            }
            payment = a_payment(state=self.outcome, **values)
            self.payments[place] = payment
            self.transitions[payment.payment_id] = [
                TransitionView(version=1, source=None, target=PaymentState.RECEIVED, at=NOON, reason=None),
                TransitionView(version=2, source=PaymentState.RECEIVED, target=payment.state, at=NOON, reason=None),
            ]
        return self.payments[place]

    def move(self, transaction_id: str, target: PaymentState) -> None:
        """Let a payment take a step."""
        for place, payment in self.payments.items():
            if place[1] == transaction_id:
                moved = msgspec.structs.replace(payment, state=target, version=payment.version + 1)
                self.payments[place] = moved
                step = TransitionView(version=moved.version, source=payment.state, target=target, at=NOON, reason=None)
                self.transitions[payment.payment_id].append(step)

    def _find(self, customer_id: str | None, transaction_id: str) -> PaymentView | PayflowError:
        return self.payments.get((customer_id or "", transaction_id)) or PaymentNotFound()

    async def await_end(self, queries: list[AwaitEnd]) -> Answers[PaymentView]:
        self.waits += queries
        by_id = {payment.payment_id: payment for payment in self.payments.values()}
        if self.later is not None:
            for query in queries:
                self.move(by_id[query.payment_id].transaction_id, self.later)
            by_id = {payment.payment_id: payment for payment in self.payments.values()}
        return [by_id[query.payment_id] for query in queries]

    async def get(self, queries: list[GetPayment]) -> Answers[PaymentView]:
        return [self._find(query.customer_id, query.transaction_id) for query in queries]

    async def history(self, queries: list[GetPayment]) -> Answers[PaymentHistory]:
        found = [self._find(query.customer_id, query.transaction_id) for query in queries]
        return [
            PaymentHistory(payment=payment, transitions=self.transitions[payment.payment_id])
            if isinstance(payment, PaymentView)
            else payment
            for payment in found
        ]

    async def list_payments(self, queries: list[ListPayments]) -> Answers[PaymentPage]:
        pages: Answers[PaymentPage] = []
        for query in queries:
            newest_first = [
                payment
                for payment in reversed(self.payments.values())
                if payment.customer_id == query.customer_id and query.state in (None, payment.state)
            ]
            ids = [payment.payment_id for payment in newest_first]
            start = 0 if query.cursor is None else ids.index(query.cursor) + 1
            page = newest_first[start : start + query.limit]
            is_last = start + query.limit >= len(newest_first)
            pages.append(PaymentPage(payments=page, next_cursor=None if is_last else page[-1].payment_id))
        return pages

    async def cancel(self, commands: list[CancelPayment]) -> Answers[PaymentView]:
        for command in commands:
            self.move(command.transaction_id, PaymentState.CANCELLED)
        return [self._find(command.customer_id, command.transaction_id) for command in commands]


class FakeAccount:
    """Accounts in memory, as far as the gateway asks."""

    def __init__(self) -> None:
        self.accounts: dict[str, AccountView] = {}
        self.entries: dict[str, list[EntryLine]] = {}
        self.names: dict[str, str] = {}
        self.names_failure: PayflowError | None = None

    def open(self, number: str, customer_id: str, *, posted: int = 0, held: int = 0, currency: str = "USD") -> None:
        """Open an account with these balances."""
        self.accounts[number] = AccountView(
            number=number,
            customer_id=customer_id,
            currency=currency,
            state=AccountState.OPEN,
            posted_minor=posted,
            held_minor=held,
            opened_at=NOON,
        )

    async def get_accounts(self, queries: list[GetAccount]) -> Answers[AccountView]:
        found = [self.accounts.get(query.number) for query in queries]
        return [
            account if account is not None and query.customer_id in (None, account.customer_id) else AccountNotFound()
            for query, account in zip(queries, found, strict=True)
        ]

    async def get_customers(self, queries: list[GetCustomer]) -> Answers[CustomerView]:
        if self.names_failure is not None:
            return [self.names_failure for _ in queries]
        return [
            CustomerView(
                customer_id=query.customer_id,
                name=self.names[query.customer_id],
                country=None,
                email=None,
                phone=None,
                state=CustomerState.ACTIVE,
                created_at=NOON,
            )
            if query.customer_id in self.names
            else CustomerNotFound()
            for query in queries
        ]

    async def list_accounts(self, queries: list[ListAccounts]) -> Answers[AccountList]:
        return [
            AccountList(accounts=[row for row in self.accounts.values() if row.customer_id == query.customer_id])
            for query in queries
        ]

    async def list_entries(self, queries: list[ListEntries]) -> Answers[EntryPage]:
        pages: Answers[EntryPage] = []
        for query in queries:
            lines = [
                line
                for line in reversed(self.entries.get(query.number, []))
                if query.cursor is None
                or (line.booked_at, line.sequence) < (query.cursor.booked_at, query.cursor.sequence)
            ]
            page = lines[: query.limit]
            is_last = len(lines) <= query.limit
            pages.append(
                EntryPage(
                    entries=page,
                    opening_minor=lines[-1].balance_minor - lines[-1].amount_minor if lines else 0,
                    closing_minor=lines[0].balance_minor if lines else 0,
                    next_cursor=None if is_last else EntryCursor(page[-1].booked_at, page[-1].sequence),
                )
            )
        return pages


def a_payment(*, state: PaymentState = PaymentState.COMPLETED, **changes: Any) -> PaymentView:
    """A payment of 1,000.00 USD in this state."""
    values: dict[str, Any] = {
        "payment_id": new_id(),
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
        "state": state,
        "version": 2,
        "amount": "1000.00",
        "amount_minor": 100_000,
        "currency": "USD",
        "debtor_account": "ACC001",
        "creditor_account": "ACC002",
        "risk_level": "LOW",
        "reference": "PF-0001" if state is PaymentState.COMPLETED else None,
        "reason": None,
        "error_code": "INSUFFICIENT_FUNDS" if state is PaymentState.REJECTED else None,
        "error_detail": "The available balance does not cover it." if state is PaymentState.REJECTED else None,
        "received_at": NOON,
        "updated_at": NOON,
        "completed_at": NOON if state is PaymentState.COMPLETED else None,
        "expires_at": NOON + timedelta(minutes=15) if state is PaymentState.AWAITING_OTP else None,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    }
    return PaymentView(**{**values, **changes})
