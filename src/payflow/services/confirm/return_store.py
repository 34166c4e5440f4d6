"""Returns in the confirm service's database, through named queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from typing import Final
from uuid import UUID

import asyncpg

from payflow.contracts.returns import ListReturns, ReturnReason, ReturnState
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox, event_of
from payflow.platform.postgres import Connection, Database, load_queries, repeat_on_conflict
from payflow.services.confirm.domain import RETURN_REFUSED, ReturnPayment, ReturnStep

queries = load_queries(__package__ or "payflow.services.confirm", "return_queries.sql")

_REFUSED: Final = sorted(state.value for state in RETURN_REFUSED)
_OTHERWISE_READ: Final = {"state", "reason_code", "note", "steps"}
_PLAIN_COLUMNS: Final = tuple(field.name for field in fields(ReturnPayment) if field.name not in _OTHERWISE_READ)


class _NotStored(Exception):
    """Rolls a claim back: its key was used, or another return was stored meanwhile."""


class PostgresReturns:
    """Returns in PostgreSQL (see ports.ReturnStore)."""

    def __init__(self, *, database: Database, cipher: ColumnCipher, outbox: Outbox, ids: Ids) -> None:
        self._database = database
        self._cipher = cipher
        self._outbox = outbox
        self._ids = ids

    async def find(self, keys: Sequence[tuple[str, str]]) -> list[ReturnPayment | None]:
        rows = await self._database.fetch(queries.find, [key[0] for key in keys], [key[1] for key in keys])
        found = {(row["requested_by"], row["idempotency_key"]): self._return(row) for row in rows}
        return [found.get(key) for key in keys]

    async def taken(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        rows = await self._database.fetch(queries.totals, payment_ids)
        return {row["payment_id"]: row["taken_minor"] for row in rows}

    async def returned(self, payment_ids: Sequence[UUID]) -> dict[UUID, int]:
        rows = await self._database.fetch(queries.totals, payment_ids)
        return {row["payment_id"]: row["returned_minor"] for row in rows if row["returned_minor"]}

    async def claim(self, made: ReturnPayment, *, original_minor: int, taken_minor: int) -> bool:
        try:
            await repeat_on_conflict(lambda: self._claim(made, original_minor, taken_minor))
        except _NotStored:
            return False
        self._outbox.wake_consumers()
        made.steps.clear()
        return True

    async def _claim(self, made: ReturnPayment, original_minor: int, taken_minor: int) -> None:
        async with self._database.transaction() as connection:
            await connection.execute(queries.open_total, made.payment_id, original_minor)
            if not await connection.fetch(queries.take, made.payment_id, taken_minor, made.amount_minor):
                raise _NotStored
            if not await connection.fetch(queries.insert, *self._new_columns(made)):
                raise _NotStored
            await self._tell(connection, made)

    def _new_columns(self, made: ReturnPayment) -> list[object]:
        place = f"payment_return.note:{made.return_id}"
        return [
            made.return_id,
            made.payment_id,
            made.transaction_id,
            made.idempotency_key,
            made.fingerprint,
            made.amount_minor,
            made.currency,
            made.debtor_customer_id,
            made.debtor_account,
            made.debtor_account_id,
            made.creditor_customer_id,
            made.creditor_account,
            made.creditor_account_id,
            made.reason_code.value,
            None if made.note is None else self._cipher.encrypt(made.note, place=place),
            made.needs_approval,
            made.requested_by,
            made.state.value,
            made.version,
            made.fencing_token,
            made.leased_until,
            made.due_at,
            made.traceparent,
            made.requested_at,
            made.expires_at,
        ]

    async def save(self, made: ReturnPayment) -> bool:
        is_saved = await repeat_on_conflict(lambda: self._save(made))
        if is_saved:
            self._outbox.wake_consumers()
        made.steps.clear()
        return is_saved

    async def _save(self, made: ReturnPayment) -> bool:
        async with self._database.transaction() as connection:
            if not await connection.fetch(queries.save, *_save_columns(made)):
                return False
            await self._tell(connection, made)
        return True

    async def _tell(self, connection: Connection, made: ReturnPayment) -> None:
        await self._outbox.append(connection, [self._event(made)])

    def _event(self, made: ReturnPayment) -> Event:
        return event_of(
            id=self._ids.new(),
            source="confirm",
            type="return.requested" if made.version == 1 else f"return.{made.state.lower()}",
            subject=str(made.return_id),
            version=made.version,
            time=made.updated_at,
            data=made.change(),
            traceparent=made.traceparent,
        )

    async def lease(self, return_id: UUID, *, now: datetime, until: datetime) -> ReturnPayment | None:
        rows = await self._database.write(queries.lease, return_id, now, until)
        return self._return(rows[0]) if rows else None

    async def lease_due(self, *, now: datetime, until: datetime, limit: int) -> list[ReturnPayment]:
        return [self._return(row) for row in await self._database.write(queries.lease_due, now, until, limit)]

    async def give_lease_back(self, made: ReturnPayment, *, due_at: datetime) -> None:
        await self._database.execute(queries.give_lease_back, made.return_id, made.fencing_token, due_at)

    async def open_by_state(self) -> dict[ReturnState, tuple[int, datetime]]:
        rows = await self._database.fetch(queries.open_by_state)
        return {ReturnState(row["state"]): (row["returns"], row["since"]) for row in rows}

    async def by_ids(self, return_ids: Sequence[UUID]) -> dict[UUID, ReturnPayment]:
        rows = await self._database.fetch(queries.by_ids, return_ids)
        return {row["return_id"]: self._return(row) for row in rows}

    async def page(self, query: ListReturns) -> list[ReturnPayment]:
        state, limit = query.state.value if query.state else None, query.limit + 1
        if query.payment_id is None:
            rows = await self._database.fetch(queries.page_of_all, query.cursor, state, limit)
        else:
            rows = await self._database.fetch(queries.page_of_payment, query.payment_id, query.cursor, state, limit)
        return [self._return(row) for row in rows]

    async def steps(self, return_id: UUID) -> list[ReturnStep]:
        return [
            ReturnStep(
                version=row["version"],
                source=ReturnState(row["source"]) if row["source"] else None,
                target=ReturnState(row["target"]),
                at=row["at"],
                reason=row["reason"],
                taken_by=row["taken_by"],
            )
            for row in await self._database.fetch(queries.steps, return_id)
        ]

    def _return(self, row: asyncpg.Record) -> ReturnPayment:
        note = row["note_encrypted"]
        place = f"payment_return.note:{row['return_id']}"
        return ReturnPayment(
            **{column: row[column] for column in _PLAIN_COLUMNS},
            state=ReturnState(row["state"]),
            reason_code=ReturnReason(row["reason_code"]),
            note=None if note is None else self._cipher.decrypt(note, place=place),
        )


def _save_columns(made: ReturnPayment) -> list[object]:
    return [
        made.return_id,
        made.fencing_token,
        made.state.value,
        made.version,
        made.leased_until,
        made.due_at,
        made.decided_by,
        made.review_id,
        made.error_code,
        made.error_detail,
        made.updated_at,
        made.completed_at,
        made.expires_at,
        [step.version for step in made.steps],
        [step.source.value if step.source else None for step in made.steps],
        [step.target.value for step in made.steps],
        [step.at for step in made.steps],
        [step.reason for step in made.steps],
        [step.taken_by for step in made.steps],
        _REFUSED,
    ]
