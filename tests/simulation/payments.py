"""Confirm's database in memory: payments, their keys and their steps, with the constraints of the migrations."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import fields
from datetime import datetime
from operator import attrgetter
from typing import Final
from uuid import UUID

from payflow.contracts.confirm import ListPayments, PaymentState, TransitionView
from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.services.confirm.domain import UNFINISHED, Payment
from tests.simulation.doors import Door
from tests.simulation.weather import Seen

# The states that keep their own deadline while a process works on the payment.
_HAS_DEADLINE: Final = frozenset({PaymentState.AWAITING_OTP, PaymentState.UNDER_REVIEW, PaymentState.SCHEDULED})
# Steps and names, a payment's last two fields, are not kept in its row.
_COLUMNS: Final = [field.name for field in fields(Payment)]
if _COLUMNS[-2:] != ["transitions", "parties"]:
    raise RuntimeError("a payment has other fields than this store knows")
_row_of: Final = attrgetter(*_COLUMNS[:-2])


def copy_of(payment: Payment) -> Payment:
    """The payment as it is stored and read again."""
    return Payment(*_row_of(payment))


def _seen(payment: Payment) -> Seen:
    return Seen(payment.payment_id, payment.fencing_token, payment.state)


class PaymentTables:
    """The committed rows, shared by all processes of confirm."""

    def __init__(self) -> None:
        self.payments: dict[UUID, Payment] = {}
        self.by_key: dict[tuple[str, str], UUID] = {}
        self.by_transaction: dict[tuple[str, str], UUID] = {}
        self.unfinished: dict[UUID, Payment] = {}
        self.steps: dict[UUID, list[TransitionView]] = {}
        self.events: list[tuple[str, UUID, int]] = []

    def insert(self, payment: Payment) -> bool:
        """Whether the payment was stored: its key and its transaction_id are new."""
        key = (payment.customer_id, payment.idempotency_key)
        transaction = (payment.customer_id, payment.transaction_id)
        if key in self.by_key or transaction in self.by_transaction:
            return False
        self.by_key[key] = self.by_transaction[transaction] = payment.payment_id
        self.write(payment)
        return True

    def write(self, payment: Payment) -> None:
        """Store the payment as it is, and its steps."""
        is_final = payment.is_final
        if is_final != (payment.due_at is None):
            raise RuntimeError("an_unfinished_payment_has_a_next_step")
        if (payment.state is PaymentState.COMPLETED) != (payment.completed_at is not None):
            raise RuntimeError("a_completed_payment_has_its_instant")
        steps = self.steps.setdefault(payment.payment_id, [])
        for step in payment.transitions:
            if step.version != len(steps) + 1:
                raise RuntimeError(f"step {step.version} of a payment that has taken {len(steps)}")
            steps.append(
                TransitionView(
                    version=step.version, source=step.source, target=step.target, at=step.at, reason=step.reason
                )
            )
        if payment.transitions and payment.state not in (PaymentState.RECEIVED, PaymentState.APPROVED):
            self.events.append((f"payment.{payment.state.lower()}", payment.payment_id, payment.version))
        stored = copy_of(payment)
        self.payments[payment.payment_id] = stored
        if is_final:
            self.unfinished.pop(payment.payment_id, None)
        else:
            self.unfinished[payment.payment_id] = stored

    def delete(self, payment: Payment) -> None:
        """The payment never was."""
        del self.payments[payment.payment_id], self.steps[payment.payment_id]
        del self.by_key[payment.customer_id, payment.idempotency_key]
        del self.by_transaction[payment.customer_id, payment.transaction_id]
        self.unfinished.pop(payment.payment_id, None)


class MemoryPayments:
    """Confirm's store for one process (see ports.Store), over tables that it shares with others."""

    def __init__(self, tables: PaymentTables, door: Door) -> None:
        self._tables, self._door = tables, door

    async def _arrive(self) -> None:
        """Before a write is made. Raises Unavailable, UnknownOutcome."""
        await self._door.enter()
        if self._door.is_lost():
            raise UnknownOutcome("the connection was lost during a write")

    async def _return(self) -> None:
        self._door.check_told()
        await self._door.leave()

    async def claim(self, payments: Sequence[Payment]) -> set[UUID]:
        await self._arrive()
        claimed = self.store_new(payments)
        self._door.note("claims", [_seen(payment) for payment in payments if payment.payment_id in claimed])
        await self._return()
        for payment in payments:
            payment.transitions.clear()
        return claimed

    def store_new(self, payments: Sequence[Payment]) -> set[UUID]:
        """The ids of those that were stored."""
        return {payment.payment_id for payment in payments if self._tables.insert(payment)}

    async def find(self, keys: Sequence[tuple[str, str, str]]) -> list[Payment | None]:
        await self._door.enter()
        tables = self._tables
        ids = [
            tables.by_key.get((customer, key)) or tables.by_transaction.get((customer, transaction))
            for customer, key, transaction in keys
        ]
        found = [None if id is None else copy_of(tables.payments[id]) for id in ids]
        await self._door.leave()
        return found

    async def save(self, payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        await self._arrive()
        saved = set()
        for payment in payments:
            if self.may_write(payment):
                self._tables.write(payment)
                saved.add(payment.payment_id)
        self._door.note("stores", [_seen(payment) for payment in payments if payment.payment_id in saved])
        await self._return()
        for payment in payments:
            payment.transitions.clear()
        return saved

    def may_write(self, payment: Payment) -> bool:
        """Whether the payment's fencing token is still its own."""
        stored = self._tables.payments.get(payment.payment_id)
        return stored is not None and stored.fencing_token == payment.fencing_token

    async def lease(
        self,
        payment_ids: Sequence[UUID],
        *,
        now: datetime,
        until: datetime,
        states: Collection[PaymentState] = UNFINISHED,
    ) -> dict[UUID, Payment]:
        if not payment_ids:
            return {}
        await self._arrive()
        unfinished = self._tables.unfinished
        known = [unfinished[id] for id in payment_ids if id in unfinished and unfinished[id].state in states]
        free = [payment for payment in known if not payment.is_leased(now)]
        leased = {payment.payment_id: self.take(payment, until) for payment in free}
        if leased:
            self._door.note("takes", [_seen(payment) for payment in leased.values()])
        await self._return()
        return leased

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[Payment]:
        await self._arrive()
        due = [
            payment
            for payment in self._tables.unfinished.values()
            if payment.due_at is not None and payment.due_at <= now and not payment.is_leased(now)
        ]
        due.sort(key=attrgetter("due_at"))
        leased = [self.take(payment, until) for payment in due[:limit]]
        if leased:
            self._door.note("takes what is due", [_seen(payment) for payment in leased])
        await self._return()
        return leased

    def take(self, payment: Payment, until: datetime) -> Payment:
        """Take the lease: a higher fencing token."""
        payment.fencing_token += 1
        payment.leased_until = until
        if payment.state not in _HAS_DEADLINE:
            payment.due_at = until
        return copy_of(payment)

    async def return_leases(self, payments: Sequence[Payment], *, due_at: datetime) -> None:
        if not payments:
            return
        try:
            await self._arrive()
            for payment in payments:
                stored = self._tables.unfinished.get(payment.payment_id)
                if stored is not None and stored.fencing_token == payment.fencing_token:
                    stored.leased_until = None
                    if stored.state is PaymentState.SCHEDULED and stored.due_at is not None:
                        stored.due_at = max(stored.due_at, due_at)
                    elif stored.state not in _HAS_DEADLINE:
                        stored.due_at = due_at
            await self._return()
        except PayflowError as error:
            # This statement alone tells a lost connection as Unavailable, whether it was made or not.
            raise Unavailable(error.detail) from error

    async def withdraw(self, payments: Sequence[Payment]) -> set[UUID]:
        if not payments:
            return set()
        await self._arrive()
        gone = set()
        for payment in payments:
            stored = self._tables.payments.get(payment.payment_id)
            if stored is not None and self.is_unused(stored):
                self._tables.delete(stored)
                gone.add(payment.payment_id)
        self._door.note("withdraws", [_seen(payment) for payment in payments if payment.payment_id in gone])
        await self._return()
        return gone

    def is_unused(self, stored: Payment) -> bool:
        """Whether a payment took no step and was never taken over."""
        return (stored.state, stored.version, stored.fencing_token) == (PaymentState.RECEIVED, 1, 1)

    async def open_by_state(self) -> dict[PaymentState, tuple[int, datetime]]:
        await self._door.enter()
        found: dict[PaymentState, tuple[int, datetime]] = {}
        for payment in self._tables.unfinished.values():
            count, since = found.get(payment.state, (0, payment.waits_since))
            found[payment.state] = (count + 1, min(since, payment.waits_since))
        return found

    async def by_ids(self, payment_ids: Sequence[UUID]) -> dict[UUID, Payment]:
        await self._door.enter()
        payments = self._tables.payments
        found = {id: copy_of(payments[id]) for id in payment_ids if id in payments}
        await self._door.leave()
        return found

    async def by_transaction(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Payment]:
        await self._door.enter()
        ids = {key: self._tables.by_transaction[key] for key in keys if key in self._tables.by_transaction}
        found = {key: copy_of(self._tables.payments[id]) for key, id in ids.items()}
        await self._door.leave()
        return found

    async def page(self, query: ListPayments) -> list[Payment]:
        await self._door.enter()
        matching = [
            payment
            for payment in sorted(self._tables.payments.values(), key=attrgetter("payment_id"), reverse=True)
            if query.customer_id in (None, payment.customer_id)
            and (query.cursor is None or payment.payment_id < query.cursor)
            and query.state in (None, payment.state)
        ]
        return [copy_of(payment) for payment in matching[: query.limit + 1]]

    async def transitions(self, payment_ids: Sequence[UUID]) -> dict[UUID, list[TransitionView]]:
        await self._door.enter()
        return {id: list(self._tables.steps[id]) for id in payment_ids if id in self._tables.steps}
