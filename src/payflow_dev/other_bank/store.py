"""The fictional banks' database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from payflow.platform.postgres import Connection, Database, load_queries
from payflow_dev.other_bank.domain import (
    DUPLICATE,
    NEVER_RECEIVED,
    Control,
    Decision,
    Payment,
    PaymentOut,
    decide,
)

queries = load_queries(__package__ or "payflow_dev.other_bank")
_PAYMENT_FIELDS = tuple(Payment.__dataclass_fields__)


class BooksStore:
    """Books, control and payments; each method is one database transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def control(self) -> Control:
        """How the bank is told to behave."""
        return msgspec.convert(await self._database.fetchval(queries.control), Control)

    async def set_control(self, control: Control) -> None:
        """Tell the bank how to behave from now on."""
        await self._database.execute(queries.set_control, msgspec.to_builtins(control))

    async def take(self, payments: Sequence[Payment], *, control: Control, now: datetime) -> list[Decision]:
        """Note, decide and book payments, each once; the decision for each, a repeat's being the first one's."""
        unique = list({payment.key: payment for payment in reversed(payments)}.values())
        async with self._database.transaction() as connection:
            rows = await connection.fetch(queries.receive, *_columns(unique), now)
            known = {payment.key: (payment, decision) for payment, decision in map(_read, rows)}
            known = await self._decide(connection, known, control=control, now=now)

        def answer(payment: Payment) -> Decision:
            first, decision = known[payment.key]
            return decision if _is_same(first, payment) else DUPLICATE

        return [answer(payment) for payment in payments]

    async def status_of(
        self, end_to_end_ids: Sequence[str], *, agent_bic: str, sender_bic: str, control: Control, now: datetime
    ) -> list[Decision]:
        """What became of payments; one that was pending is decided now if the bank has been told otherwise."""
        async with self._database.transaction() as connection:
            rows = await connection.fetch(queries.lock_received, agent_bic, sender_bic, end_to_end_ids)
            known = {payment.key: (payment, decision) for payment, decision in map(_read, rows)}
            known = await self._decide(connection, known, control=control, now=now)
        decisions = {payment.end_to_end_id: decision for payment, decision in known.values()}
        return [decisions.get(identifier, NEVER_RECEIVED) for identifier in end_to_end_ids]

    async def _decide(
        self,
        connection: Connection,
        known: Mapping[Any, tuple[Payment, Decision]],
        *,
        control: Control,
        now: datetime,
    ) -> dict[Any, tuple[Payment, Decision]]:
        accounts = await connection.fetch(queries.accounts)
        holders = {row["number"]: row["agent_bic"] for row in accounts}
        decided: list[tuple[Payment, Decision]] = []
        for payment, decision in known.values():
            if decision.status == "PENDING":
                behaviour = control.behaviour_for(end_to_end_id=payment.end_to_end_id, account=payment.account)
                decided.append((payment, decide(payment, behaviour=behaviour, holders=holders)))
        ends = [(payment, decision) for payment, decision in decided if decision.status != "PENDING"]
        if ends:
            await connection.execute(
                queries.decide,
                [payment.agent_bic for payment, _ in ends],
                [payment.sender_bic for payment, _ in ends],
                [payment.end_to_end_id for payment, _ in ends],
                [decision.status for _, decision in ends],
                [decision.reason_code for _, decision in ends],
                now,
            )
        await _book_in(connection, [payment for payment, decision in ends if decision.status == "ACCEPTED"], now)
        return {**known, **{payment.key: (payment, decision) for payment, decision in decided}}

    async def accounts(self) -> dict[str, tuple[str, str]]:
        """Each account's bank and holder, by number."""
        return {
            row["number"]: (row["agent_bic"], row["holder"]) for row in await self._database.fetch(queries.accounts)
        }

    async def note_payment(self, payment: PaymentOut) -> PaymentOut:
        """Note a payment before it is sent; returns it as it was noted first."""
        await self._database.execute(
            queries.pay,
            payment.end_to_end_id,
            payment.agent_bic,
            payment.message_id,
            payment.uetr,
            payment.from_account,
            payment.to_account,
            payment.amount_minor,
            payment.currency,
            payment.debtor_name,
            payment.creditor_name,
            payment.sent_at,
        )
        noted = await self.find_paid(payment.agent_bic, payment.end_to_end_id)
        assert noted is not None
        return noted

    async def find_paid(self, agent_bic: str, end_to_end_id: str) -> PaymentOut | None:
        """A payment that was sent from here, None where none was."""
        row = await self._database.fetchrow(queries.find_paid, agent_bic, end_to_end_id)
        return None if row is None else PaymentOut(**dict(row))

    async def is_taken_back(self, agent_bic: str, *, prefix: str, besides: str) -> bool:
        """Whether a return was accepted whose id in the books begins so, another than this one."""
        return bool(await self._database.fetchval(queries.taken_back, agent_bic, prefix, besides))

    async def count_sending(self, payment: PaymentOut) -> None:
        """Count that the payment is put on the wire."""
        await self._database.execute(queries.count_sending, payment.agent_bic, payment.end_to_end_id)

    async def unanswered(self, *, sent_before: datetime) -> list[PaymentOut]:
        """Payments that nobody has answered for good."""
        return [PaymentOut(**dict(row)) for row in await self._database.fetch(queries.unanswered, sent_before)]

    async def answer(
        self,
        payment: PaymentOut,
        *,
        other_bic: str,
        outcome: str,
        iso_status: str | None,
        reason: str | None,
        now: datetime,
    ) -> None:
        """Write the answer to a payment, once for good, and book it when it was accepted."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                queries.answer_paid, payment.agent_bic, payment.end_to_end_id, outcome, iso_status, reason, now
            )
            if row is None or row["status"] != "ACCEPTED":
                return
            number, currency = row["from_account"], row["currency"]
            await connection.fetch(queries.lock_balances, [number])
            columns = ([number], [currency], [-row["amount_minor"]], ["OUT"], [payment.agent_bic], [other_bic])
            await connection.execute(queries.book, *columns, [payment.end_to_end_id], now)

    async def books(self, *, end_to_end_id: str | None, after: int, limit: int) -> dict[str, Any]:
        """Everything that was received and paid, a page of each, with all balances and totals, in one snapshot."""
        async with self._database.transaction(is_read_only=True) as connection:
            return {
                "received": _rows(await connection.fetch(queries.books_received, end_to_end_id, after, limit)),
                "paid": _rows(await connection.fetch(queries.books_paid, end_to_end_id, after, limit)),
                "accounts": _rows(await connection.fetch(queries.books_balances)),
                "totals": _rows(await connection.fetch(queries.books_totals)),
            }


def _rows(records: Sequence[Any]) -> list[dict[str, Any]]:
    return [dict(record) for record in records]


def _columns(payments: Sequence[Payment]) -> list[list[Any]]:
    return [[getattr(payment, name) for payment in payments] for name in _PAYMENT_FIELDS if name != "received_at"]


def _read(row: Any) -> tuple[Payment, Decision]:
    payment = Payment(**{name: row[name] for name in _PAYMENT_FIELDS})
    return payment, Decision(row["status"], row["reason_code"])


def _is_same(first: Payment, repeat: Payment) -> bool:
    names = ("account", "amount_minor", "currency", "uetr")
    return all(getattr(first, name) == getattr(repeat, name) for name in names)


async def _book_in(connection: Connection, payments: Sequence[Payment], now: datetime) -> None:
    if not payments:
        return
    await connection.fetch(queries.lock_balances, [payment.account for payment in payments])
    await connection.execute(
        queries.book,
        [payment.account for payment in payments],
        [payment.currency for payment in payments],
        [payment.amount_minor for payment in payments],
        ["IN" for _ in payments],
        [payment.agent_bic for payment in payments],
        [payment.sender_bic for payment in payments],
        [payment.end_to_end_id for payment in payments],
        now,
    )
