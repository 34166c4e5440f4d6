"""The confirm service's database: payments and their transitions through named queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

import asyncpg

from payflow.contracts.confirm import Creditor, ListPayments, PaymentState, TransitionView
from payflow.contracts.sides import PaymentSides, Side
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher, read_or_none
from payflow.platform.eventlog import Outbox, encode_events, event_of
from payflow.platform.http.trace import as_recorded
from payflow.platform.postgres import Database, load_queries, repeat_on_conflict
from payflow.platform.tracing.events import writing
from payflow.services.confirm.domain import MACHINE, UNFINISHED, WORKING, Payment, Transition
from payflow.services.confirm.measures import tell_steps

queries = load_queries(__package__ or "payflow.services.confirm")

BATCHES_IN_HAND_MAX: Final = 4096
_TOLD: Final = frozenset(MACHINE.states) - WORKING


class PostgresStore:
    """The confirm service's tables (see ports.Store)."""

    def __init__(self, *, database: Database, cipher: ColumnCipher, outbox: Outbox, ids: Ids) -> None:
        self._database = database
        self._cipher = cipher
        self._outbox = outbox
        self._ids = ids
        # The batches in hand, by batch and by payment: a hint for tidying up at once. The tables are the truth.
        self._in_hand: dict[UUID, set[UUID]] = {}
        self._batch_of: dict[UUID, UUID] = {}

    async def claim(self, payments: Sequence[Payment]) -> set[UUID]:
        # In one order: two processes that store the same keys in opposite orders would wait for each other.
        ordered = sorted(payments, key=lambda payment: (payment.customer_id, payment.idempotency_key))
        batch_id = self._ids.new()
        claimed = await repeat_on_conflict(lambda: self._claim(ordered, batch_id))
        self._take_in_hand(batch_id, [payment for payment in payments if payment.payment_id in claimed])
        tell_steps(payments, stored=claimed)
        for payment in payments:
            payment.transitions.clear()
        return claimed

    async def _claim(self, payments: Sequence[Payment], batch_id: UUID) -> set[UUID]:
        if not any(payment.is_final for payment in payments):
            rows = await self._database.write(queries.claim, *self._claim_columns(payments), batch_id)
            return {row["payment_id"] for row in rows}
        async with self._database.transaction() as connection:
            rows = await connection.fetch(queries.claim, *self._claim_columns(payments), batch_id)
            claimed = {row["payment_id"] for row in rows}
            refused = [payment for payment in payments if payment.is_final and payment.payment_id in claimed]
            await self._outbox.append(connection, self._events(refused))
        if refused:
            self._outbox.wake_consumers()
        return claimed

    def _claim_columns(self, payments: Sequence[Payment]) -> list[object]:
        creditors = [payment.creditor for payment in payments]
        steps = _steps(payments)
        return [
            [payment.payment_id for payment in payments],
            [payment.customer_id for payment in payments],
            [payment.idempotency_key for payment in payments],
            [payment.fingerprint for payment in payments],
            [payment.transaction_id for payment in payments],
            [payment.amount for payment in payments],
            [payment.amount_minor for payment in payments],
            [payment.currency for payment in payments],
            [payment.debtor_account for payment in payments],
            [payment.creditor_account for payment in payments],
            [
                self._encrypt(payment, "creditor_name", payment.creditor.name if payment.creditor else None)
                for payment in payments
            ],
            [creditor and creditor.country for creditor in creditors],
            [creditor and creditor.agent for creditor in creditors],
            [self._encrypt(payment, "remittance", payment.remittance_information) for payment in payments],
            [payment.debtor_account_id for payment in payments],
            [payment.creditor_account_id for payment in payments],
            [payment.agent_bic for payment in payments],
            [payment.state.value for payment in payments],
            [payment.version for payment in payments],
            [payment.leased_until for payment in payments],
            [payment.due_at for payment in payments],
            [payment.reason for payment in payments],
            [payment.error_code for payment in payments],
            [payment.error_detail for payment in payments],
            payments[0].received_at,
            [payment.traceparent for payment in payments],
            [payment_id for payment_id, _ in steps],
            [step.version for _, step in steps],
            [step.source for _, step in steps],
            [step.target.value for _, step in steps],
            [step.reason for _, step in steps],
            [payment.execute_at for payment in payments],
            [payment.bulk_id for payment in payments],
        ]

    async def find(self, keys: Sequence[tuple[str, str, str]]) -> list[Payment | None]:
        rows = await self._database.fetch(
            queries.find, [key[0] for key in keys], [key[1] for key in keys], [key[2] for key in keys]
        )
        found = [self._payment(row) for row in rows]
        by_key = {(payment.customer_id, payment.idempotency_key): payment for payment in found}
        by_transaction = {(payment.customer_id, payment.transaction_id): payment for payment in found}
        return [by_key.get((customer, key)) or by_transaction.get((customer, id)) for customer, key, id in keys]

    async def save(self, payments: Sequence[Payment], *, now: datetime) -> set[UUID]:
        if not payments:
            return set()
        # Batches lock their payments in one order.
        ordered = sorted(payments, key=lambda payment: payment.payment_id)
        saved = await repeat_on_conflict(lambda: self._save_whole(ordered))
        if not saved:
            saved = await repeat_on_conflict(lambda: self._save(ordered))
        tell_steps(payments, stored=saved)
        for payment in payments:
            payment.transitions.clear()
        return saved

    async def _save_whole(self, payments: Sequence[Payment]) -> set[UUID]:
        """Store all payments and their events in one statement, or nothing: then one of them was overtaken."""
        events = self._events(payments)
        if not events:
            return set()
        finished = self._batches_finished_by(payments)
        with writing(events):
            rows = await self._database.write(
                queries.save_whole, *_save_columns(payments), *encode_events(events), finished
            )
        if rows:
            self._outbox.wake_consumers()
            self._let_go(payments)
        return {row["payment_id"] for row in rows}

    async def _save(self, payments: Sequence[Payment]) -> set[UUID]:
        async with self._database.transaction() as connection:
            rows = await connection.fetch(queries.save, *_save_columns(payments))
            saved = {row["payment_id"] for row in rows}
            events = self._events([payment for payment in payments if payment.payment_id in saved])
            await self._outbox.append(connection, events)
        if events:
            self._outbox.wake_consumers()
        return saved

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
        rows = await self._database.write(queries.lease, payment_ids, now, until, [state.value for state in states])
        return {row["payment_id"]: self._payment(row) for row in rows}

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[Payment]:
        rows = await self._database.write(queries.lease_due, now, until, limit)
        await self._database.execute(queries.forget_batches, now)
        return [self._payment(row) for row in rows]

    async def return_leases(self, payments: Sequence[Payment], *, due_at: datetime) -> None:
        if payments:
            await self._database.execute(
                queries.return_leases,
                [payment.payment_id for payment in payments],
                [payment.fencing_token for payment in payments],
                due_at,
            )
            self._let_go(payments)

    async def withdraw(self, payments: Sequence[Payment]) -> set[UUID]:
        if not payments:
            return set()
        rows = await self._database.write(queries.withdraw, [payment.payment_id for payment in payments])
        self._let_go(payments)
        return {row["payment_id"] for row in rows}

    def _take_in_hand(self, batch_id: UUID, payments: Sequence[Payment]) -> None:
        unfinished = {payment.payment_id for payment in payments if not payment.is_final}
        if unfinished:
            if len(self._in_hand) >= BATCHES_IN_HAND_MAX:
                # Left behind by calls that failed: the recovery finds them by their rows.
                self._in_hand.clear()
                self._batch_of.clear()
            self._in_hand[batch_id] = unfinished
            self._batch_of.update(dict.fromkeys(unfinished, batch_id))

    def _batches_finished_by(self, payments: Sequence[Payment]) -> list[UUID]:
        """The batches that have no other payments left than these."""
        saved = {payment.payment_id for payment in payments}
        batches = {self._batch_of[payment_id] for payment_id in saved if payment_id in self._batch_of}
        return [batch_id for batch_id in batches if self._in_hand[batch_id] <= saved]

    def _let_go(self, payments: Sequence[Payment]) -> None:
        """These have ended, wait, or are gone: they are in no batch any more."""
        for payment in payments:
            batch_id = self._batch_of.pop(payment.payment_id, None)
            if batch_id is not None:
                self._in_hand[batch_id].discard(payment.payment_id)
                if not self._in_hand[batch_id]:
                    del self._in_hand[batch_id]

    async def open_by_state(self) -> dict[PaymentState, tuple[int, datetime]]:
        rows = await self._database.fetch(queries.open_by_state)
        return {PaymentState(row["state"]): (row["payments"], row["since"]) for row in rows}

    async def by_ids(self, payment_ids: Sequence[UUID]) -> dict[UUID, Payment]:
        rows = await self._database.fetch(queries.by_ids, payment_ids)
        return {row["payment_id"]: self._payment(row) for row in rows}

    async def by_transaction(self, keys: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Payment]:
        rows = await self._database.fetch(queries.by_transaction, [key[0] for key in keys], [key[1] for key in keys])
        return {(row["customer_id"], row["transaction_id"]): self._payment(row) for row in rows}

    async def page(self, query: ListPayments) -> list[Payment]:
        state = query.state.value if query.state else None
        if query.customer_id is None:
            rows = await self._database.fetch(queries.page_of_all, query.cursor, state, query.limit + 1)
        else:
            rows = await self._database.fetch(
                queries.page_of_customer, query.customer_id, query.cursor, state, query.limit + 1
            )
        return [self._payment(row) for row in rows]

    async def transitions(self, payment_ids: Sequence[UUID]) -> dict[UUID, list[TransitionView]]:
        steps: dict[UUID, list[TransitionView]] = {}
        for row in await self._database.fetch(queries.transitions, payment_ids):
            step = TransitionView(
                version=row["version"],
                source=PaymentState(row["source"]) if row["source"] else None,
                target=PaymentState(row["target"]),
                at=row["at"],
                reason=row["reason"],
            )
            steps.setdefault(row["payment_id"], []).append(step)
        return steps

    async def sides(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentSides | None]:
        rows = await self._database.fetch(queries.sides, payment_ids)
        return {row["booked_as"]: read_or_none(partial(self._sides, row)) for row in rows}

    def _sides(self, row: asyncpg.Record) -> PaymentSides:
        return PaymentSides(
            payment_id=row["booked_as"],
            debtor=Side(account=row["debtor_account"]),
            creditor=Side(
                account=row["creditor_account"], name=self._decrypt(row, "creditor_name"), agent=row["agent_bic"]
            ),
            remittance_information=self._decrypt(row, "remittance"),
            transaction_id=row["transaction_id"],
            customer_id=row["customer_id"],
        )

    async def forget_old_keys(self, *, before: datetime) -> str:
        """Free the idempotency keys of payments that were received before this instant and have ended."""
        return await self._database.execute(queries.forget_old_keys, before)

    def _events(self, payments: Sequence[Payment]) -> list[Event]:
        return [
            event_of(
                id=self._ids.new(),
                source="confirm",
                type=f"payment.{payment.state.lower()}",
                subject=str(payment.payment_id),
                version=payment.version,
                time=payment.updated_at,
                data=payment.change(at=payment.updated_at),
                # Whoever looks into a review wants to see all of it.
                traceparent=as_recorded(payment.traceparent) if payment.review_id else payment.traceparent,
            )
            for payment in payments
            if payment.transitions and payment.state in _TOLD
        ]

    def _encrypt(self, payment: Payment, column: str, text: str | None) -> bytes | None:
        return None if text is None else self._cipher.encrypt(text, place=f"transactions.{column}:{payment.payment_id}")

    def _decrypt(self, row: asyncpg.Record, column: str) -> str | None:
        data = row[f"{column}_encrypted"]
        return None if data is None else self._cipher.decrypt(data, place=f"transactions.{column}:{row['payment_id']}")

    def _payment(self, row: asyncpg.Record) -> Payment:
        name = self._decrypt(row, "creditor_name")
        creditor = (
            None if name is None else Creditor(name=name, country=row["creditor_country"], agent=row["creditor_agent"])
        )
        plain = {column: row[column] for column in _PLAIN_COLUMNS}
        return Payment(
            **plain,
            idempotency_key=row["idempotency_key"] or "",
            state=PaymentState(row["state"]),
            creditor=creditor,
            remittance_information=self._decrypt(row, "remittance"),
        )


_PLAIN_COLUMNS = (
    "payment_id",
    "customer_id",
    "fingerprint",
    "transaction_id",
    "amount",
    "currency",
    "debtor_account",
    "creditor_account",
    "traceparent",
    "received_at",
    "updated_at",
    "version",
    "fencing_token",
    "leased_until",
    "due_at",
    "amount_minor",
    "debtor_account_id",
    "creditor_account_id",
    "agent_bic",
    "risk_level",
    "needs_otp",
    "has_hold",
    "review_id",
    "reason",
    "error_code",
    "error_detail",
    "completed_at",
    "expires_at",
    "execute_at",
    "bulk_id",
)


def _steps(payments: Sequence[Payment]) -> list[tuple[UUID, Transition]]:
    """The steps to store; the first one, RECEIVED, is the payment's own row."""
    return [(payment.payment_id, step) for payment in payments for step in payment.transitions if step.version > 1]


def _save_columns(payments: Sequence[Payment]) -> list[object]:
    steps = _steps(payments)
    return [
        [payment.payment_id for payment in payments],
        [payment.fencing_token for payment in payments],
        [payment.state.value for payment in payments],
        [payment.version for payment in payments],
        [payment.leased_until for payment in payments],
        [payment.due_at for payment in payments],
        [payment.risk_level for payment in payments],
        [payment.needs_otp for payment in payments],
        [payment.has_hold for payment in payments],
        [payment.review_id for payment in payments],
        [payment.reason for payment in payments],
        [payment.error_code for payment in payments],
        [payment.error_detail for payment in payments],
        [payment.updated_at for payment in payments],
        [payment.completed_at for payment in payments],
        [payment.expires_at for payment in payments],
        [payment_id for payment_id, _ in steps],
        [step.version for _, step in steps],
        [step.source.value if step.source else None for _, step in steps],
        [step.target.value for _, step in steps],
        [step.at for _, step in steps],
        [step.reason for _, step in steps],
    ]
