"""The tables of bulk orders, through named queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from payflow.contracts.bulk import BulkPayment, BulkState, ItemStatus, ListBulks
from payflow.contracts.confirm import PaymentState, PaymentView
from payflow.kernel.clock import Ids
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox, event_of
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.confirm.bulk.domain import Chunk, Counts, Ending, Order, mark_duplicates
from payflow.services.confirm.bulk.ports import OpenPayments, Tally, Turn
from payflow.services.confirm.store import PostgresStore

queries: Final = load_queries(__package__ or "payflow.services.confirm.bulk")
_payments: Final = msgspec.json.Decoder(list[BulkPayment | None])
_OPEN: Final = frozenset({ItemStatus.OTP_REQUIRED, ItemStatus.PENDING})
_ORDER_COLUMNS: Final = (
    "bulk_id",
    "customer_id",
    "version",
    "fencing_token",
    "items",
    "stored_to",
    "started_to",
    "ran_to",
    "columns",
    "traceparent",
    "received_at",
    "updated_at",
    "accepted_at",
    "ended_at",
    "expires_at",
)


class PostgresBulkStore:
    """The tables of bulk orders (see ports.BulkStore)."""

    def __init__(self, *, database: Database, cipher: ColumnCipher, outbox: Outbox, ids: Ids) -> None:
        self._database = database
        self._cipher = cipher
        self._outbox = outbox
        self._ids = ids

    async def find(self, *, customer_id: str, key: str) -> Order | None:
        row = await self._database.fetchrow(queries.find, customer_id, key)
        return None if row is None else _order(row)

    async def open(self, order: Order, *, key: str, running_max: int, uploads_max: int) -> Order | None:
        async with self._database.transaction() as connection:
            await connection.execute(queries.lock_customer, order.customer_id)
            row = await connection.fetchrow(
                queries.open,
                order.bulk_id,
                order.customer_id,
                key,
                order.expires_at,
                order.columns,
                order.traceparent,
                order.received_at,
                running_max,
                uploads_max,
            )
            if row is None:
                row = await connection.fetchrow(queries.find, order.customer_id, key)
        return None if row is None else _order(row)

    async def get(self, keys: Sequence[tuple[str, UUID]]) -> dict[UUID, Order]:
        rows = await self._database.fetch(queries.get, [key[0] for key in keys], [key[1] for key in keys])
        return {row["bulk_id"]: _order(row) for row in rows}

    async def page(self, query: ListBulks) -> list[Order]:
        state = query.state.value if query.state else None
        rows = await self._database.fetch(queries.page, query.customer_id, query.cursor, state, query.limit + 1)
        return [_order(row) for row in rows]

    async def append(self, *, bulk_id: UUID, customer_id: str, chunk: Chunk, items_max: int, now: datetime) -> bool:
        text = msgspec.json.encode(chunk.payments).decode()
        rows = await self._database.write(
            queries.append,
            bulk_id,
            customer_id,
            chunk.first_line,
            chunk.last_line,
            chunk.lines,
            chunk.transaction_ids,
            chunk.fingerprints,
            self._cipher.encrypt(text, place=_place(bulk_id, chunk.first_line)),
            chunk.error_codes,
            chunk.error_details,
            chunk.counts,
            now,
            items_max,
        )
        return bool(rows)

    async def fingerprints(self, *, bulk_id: UUID, first_line: int, last_line: int) -> dict[int, bytes]:
        rows = await self._database.fetch(queries.fingerprints, bulk_id, first_line, last_line)
        return {row["number"]: row["fingerprint"] for row in rows}

    async def accept(
        self, *, bulk_id: UUID, customer_id: str, last_line: int, running_max: int, now: datetime, expires_at: datetime
    ) -> Order | None:
        async with self._database.transaction() as connection:
            await connection.execute(queries.lock_customer, customer_id)
            row = await connection.fetchrow(
                queries.accept, bulk_id, customer_id, last_line, now, expires_at, running_max
            )
            if row is None:
                return None
            await self._refuse_repeated(connection, bulk_id)
            await self._tell(connection, "bulk.accepted", _order(row), now=now)
        self._outbox.wake_consumers()
        return _order(row)

    async def _refuse_repeated(self, connection: Connection, bulk_id: UUID) -> None:
        earlier: dict[int, dict[int, int]] = defaultdict(dict)
        for row in await connection.fetch(queries.repeated_transactions, bulk_id):
            earlier[row["first_line"]][row["number"]] = row["earliest"]
        if not earlier:
            return
        for row in await connection.fetch(queries.chunks_by_first_line, bulk_id, list(earlier)):
            chunk = _chunk(row)
            mark_duplicates(chunk, earlier=earlier[chunk.first_line])
            await connection.execute(
                queries.refuse_lines, bulk_id, chunk.first_line, chunk.error_codes, chunk.error_details, chunk.counts
            )

    async def cancel(self, *, bulk_id: UUID, customer_id: str, is_upload_only: bool, now: datetime) -> Order | None:
        rows = await self._database.write(queries.cancel, bulk_id, customer_id, now, is_upload_only)
        if rows:
            return _order(rows[0])
        return (await self.get([(customer_id, bulk_id)])).get(bulk_id)

    async def take_turn(self, *, now: datetime, until: datetime) -> Turn | None:
        rows = await self._database.write(queries.take_turn, now, until)
        if not rows:
            return None
        order = _order(rows[0])
        return Turn(order, None if rows[0]["first_line"] is None else self._contents(order, rows[0]))

    def _contents(self, order: Order, row: asyncpg.Record) -> Chunk:
        chunk = _chunk(row)
        chunk.fingerprints = row["fingerprints"]
        text = self._cipher.decrypt(row["payments_encrypted"], place=_place(order.bulk_id, chunk.first_line))
        chunk.payments = _payments.decode(text)
        return chunk

    async def finish_chunk(self, order: Order, chunk: Chunk, *, now: datetime) -> bool:
        values = (
            order.bulk_id,
            order.fencing_token,
            chunk.first_line,
            chunk.last_line,
            now,
            chunk.payment_ids,
            chunk.error_codes,
            chunk.error_details,
            chunk.counts,
            chunk.open_ids,
        )
        if chunk.last_line < order.stored_to:
            return bool(await self._database.write(queries.finish_chunk, *values))
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(queries.finish_chunk, *values)
            if row is not None:
                await self._tell(connection, "bulk.completed", _order(row), now=now)
        self._outbox.wake_consumers()
        return row is not None

    async def end(self, order: Order, ending: Ending, *, now: datetime) -> bool:
        async with self._database.transaction() as connection:
            row = await connection.fetchrow(
                queries.end_order, order.bulk_id, order.fencing_token, order.state.value, ending.state.value, now
            )
            if row is None:
                return False
            await connection.execute(
                queries.end_lines,
                order.bulk_id,
                order.ran_to,
                ending.error.code,
                ending.error.detail,
                ending.status.value,
            )
            await self._tell(connection, f"bulk.{ending.state.lower()}", _order(row), now=now)
        self._outbox.wake_consumers()
        return True

    async def _tell(self, connection: Connection, type_: str, order: Order, *, now: datetime) -> None:
        counts = _tallied(await connection.fetch(queries.tallies, [order.bulk_id]))
        paid = {row["currency"]: row["paid_minor"] for row in await connection.fetch(queries.paid, order.bulk_id)}
        event = event_of(
            id=self._ids.new(),
            source="confirm",
            type=type_,
            subject=str(order.bulk_id),
            version=order.version,
            time=now,
            data=order.change(counts.get(order.bulk_id, {}), paid_minor=paid),
            traceparent=order.traceparent,
        )
        await self._outbox.append(connection, [event])

    async def rest(self, order: Order, *, due_at: datetime) -> None:
        await self._database.execute(queries.rest, order.bulk_id, order.fencing_token, due_at)

    async def tallies(self, bulk_ids: Sequence[UUID]) -> dict[UUID, Tally]:
        found = _tallied(await self._database.fetch(queries.tallies, list(bulk_ids)))
        return {id: Tally(counts, any(counts.get(status) for status in _OPEN)) for id, counts in found.items()}

    async def begin_recount(self, *, bulk_id: UUID, now: datetime, not_since: datetime) -> bool:
        return bool(await self._database.write(queries.begin_recount, bulk_id, now, not_since))

    async def open_payments(self, bulk_id: UUID) -> dict[int, OpenPayments]:
        found: dict[int, OpenPayments] = {}
        for row in await self._database.fetch(queries.open_payments, bulk_id):
            known = found.setdefault(row["first_line"], OpenPayments(_counts(row["counts"]), {}))
            known.states[row["payment_id"]] = PaymentState(row["state"])
        return found

    async def write_counts(self, bulk_id: UUID, found: Mapping[int, tuple[Counts, list[UUID]]]) -> None:
        if not found:
            return
        async with self._database.transaction() as connection:
            for first_line, (counts, open_ids) in sorted(found.items()):
                await connection.execute(queries.write_counts, bulk_id, first_line, counts, open_ids)

    async def chunks(self, *, bulk_id: UUID, after_line: int, limit: int) -> list[Chunk]:
        rows = await self._database.fetch(queries.chunks, bulk_id, after_line, limit)
        return [_chunk(row) for row in rows]

    async def open_by_state(self) -> dict[BulkState, tuple[int, datetime]]:
        rows = await self._database.fetch(queries.open_by_state)
        return {BulkState(row["state"]): (row["orders"], row["since"]) for row in rows}

    async def forget_old_keys(self, *, before: datetime) -> str:
        """Free the idempotency keys of orders that were received before this instant and have ended."""
        return await self._database.execute(queries.forget_old_keys, before)


class StoredPayments:
    """Confirm's payments as bulk orders read them (see ports.Payments)."""

    def __init__(self, store: PostgresStore) -> None:
        self._store = store

    async def views(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentView]:
        return {id: payment.view() for id, payment in (await self._store.by_ids(payment_ids)).items()}


def _place(bulk_id: UUID, first_line: int) -> str:
    return f"bulk_chunk.payments:{bulk_id}:{first_line}"


def _order(row: asyncpg.Record) -> Order:
    plain: dict[str, Any] = {column: row[column] for column in _ORDER_COLUMNS}
    return Order(**plain, state=BulkState(row["state"]))


def _chunk(row: asyncpg.Record) -> Chunk:
    return Chunk(
        first_line=row["first_line"],
        lines=row["lines"],
        transaction_ids=row["transaction_ids"],
        fingerprints=[],
        error_codes=row["error_codes"],
        error_details=row["error_details"],
        payment_ids=row.get("payment_ids") or [],
    )


def _counts(stored: Mapping[str, int]) -> Counts:
    return {ItemStatus(status): count for status, count in stored.items()}


def _tallied(rows: Sequence[asyncpg.Record]) -> dict[UUID, Counts]:
    found: dict[UUID, Counts] = defaultdict(dict)
    for row in rows:
        if row["lines"]:
            found[row["bulk_id"]][ItemStatus(row["status"])] = row["lines"]
    return dict(found)
