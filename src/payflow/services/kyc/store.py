"""The kyc service's database: verification records through named queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

import asyncpg

from payflow.contracts.kyc import VerificationLevel, VerificationState
from payflow.kernel.envelope import Event
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import ConcurrencyConflict, Connection, Database, load_queries
from payflow.services.kyc.domain import Change, Verification

queries = load_queries(__package__ or "payflow.services.kyc")


class PostgresRecords:
    """One database transaction that writes records (see ports.RecordTransaction)."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self.has_events = False

    async def lock(self, customer_ids: Sequence[str]) -> None:
        await self._connection.execute(queries.lock_customers, customer_ids)

    async def current(self, customer_ids: Sequence[str]) -> dict[str, Verification]:
        rows = await self._connection.fetch(queries.current, customer_ids)
        return {row["customer_id"]: _verification(row) for row in rows}

    async def recorded(self, command_ids: Sequence[UUID]) -> dict[UUID, Change]:
        rows = await self._connection.fetch(queries.recorded, command_ids)
        return {row["command_id"]: _change(row) for row in rows}

    async def save(self, changes: Sequence[Change]) -> None:
        written: int = await self._connection.fetchval(
            queries.save,
            [change.command_id for change in changes],
            [change.verification.customer_id for change in changes],
            [change.verification.version for change in changes],
            [change.verification.state.value for change in changes],
            [change.verification.level.value for change in changes],
            [change.verification.verified_at for change in changes],
            [change.verification.expires_at for change in changes],
            [change.reason for change in changes],
            [change.recorded_by for change in changes],
            [change.recorded_at for change in changes],
        )
        if written < len(changes):
            raise ConcurrencyConflict("A command id was used for another customer meanwhile.")

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._outbox.append(self._connection, events)
        self.has_events = self.has_events or bool(events)


class PostgresStore:
    """The kyc service's tables (see ports.Store)."""

    def __init__(self, *, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresRecords]:
        async with self._database.transaction() as connection:
            records = PostgresRecords(connection, self._outbox)
            yield records
        if records.has_events:
            self._outbox.wake_consumers()

    async def current(self, customer_ids: Sequence[str]) -> dict[str, Verification]:
        rows = await self._database.fetch(queries.current, customer_ids)
        return {row["customer_id"]: _verification(row) for row in rows}

    async def changes(self, customer_ids: Sequence[str]) -> dict[str, list[Change]]:
        changes: dict[str, list[Change]] = {}
        for row in await self._database.fetch(queries.changes, customer_ids):
            changes.setdefault(row["customer_id"], []).append(_change(row))
        return changes


def _verification(row: asyncpg.Record) -> Verification:
    return Verification(
        customer_id=row["customer_id"],
        version=row["version"],
        state=VerificationState(row["state"]),
        level=VerificationLevel(row["level"]),
        verified_at=row["verified_at"],
        expires_at=row["expires_at"],
    )


def _change(row: asyncpg.Record) -> Change:
    return Change(
        command_id=row["command_id"],
        verification=_verification(row),
        reason=row["reason"],
        recorded_by=row["recorded_by"],
        recorded_at=row["recorded_at"],
    )
