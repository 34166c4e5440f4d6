"""The audit service's database: the chain's tables through named queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import asyncpg

from payflow.contracts.audit import SearchAudit
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.audit.domain import ChainEnd, Receipt, Record

queries = load_queries(__package__ or "payflow.services.audit")

_ABOUT: Final = "AND (subject = ${0} OR names_payment = ${0} OR names_customer = ${0})"
_OF_TYPE: Final = "AND type = ${0}"
_BEFORE: Final = "AND sequence < ${0}"
_AFTER: Final = "AND sequence > ${0}"


class PostgresChain:
    """The chain inside a transaction (see ports.Chain)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def lock_end(self) -> ChainEnd:
        row = await self._connection.fetchrow(queries.lock_end)
        return _end(row)

    async def known(self, event_ids: Sequence[UUID]) -> set[UUID]:
        rows = await self._connection.fetch(queries.known, event_ids)
        return {row["event_id"] for row in rows}

    async def append(self, records: Sequence[Record]) -> None:
        await self._connection.execute(
            queries.append,
            *([getattr(record, column) for record in records] for column in Record.__struct_fields__),
            records[-1].sequence,
            records[-1].hash,
        )


class PostgresSnapshot:
    """The table as one transaction sees it (see ports.Snapshot)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def end(self) -> ChainEnd:
        return _end(await self._connection.fetchrow(queries.end))

    async def records_after(self, sequence: int, *, limit: int) -> list[Record]:
        return [_record(row) for row in await self._connection.fetch(queries.records_after, sequence, limit)]


class PostgresStore:
    """The audit service's tables (see ports.Store)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[PostgresSnapshot]:
        async with self._database.transaction(is_read_only=True) as connection:
            yield PostgresSnapshot(connection)

    async def end(self) -> ChainEnd:
        return _end(await self._database.fetchrow(queries.end))

    async def receipt(self) -> Receipt:
        row = await self._database.fetchrow(queries.receipt)
        return Receipt() if row is None else Receipt(row["number"], row["digest"])

    async def save_receipt(self, receipt: Receipt) -> None:
        await self._database.execute(queries.save_receipt, receipt.number, receipt.digest)

    async def events_set_aside(self) -> int:
        return int(await self._database.fetchval(queries.events_set_aside))

    async def search(self, query: SearchAudit, *, limit: int) -> list[Record]:
        arguments: list[Any] = [limit]
        filters: list[str] = []
        wanted = (
            (_ABOUT, query.subject),
            (_OF_TYPE, query.type),
            (_AFTER if query.oldest_first else _BEFORE, query.cursor),
        )
        for condition, value in wanted:
            if value is not None:
                arguments.append(value)
                filters.append(condition.format(len(arguments)))
        statement = queries.search.format(filters=" ".join(filters), direction="ASC" if query.oldest_first else "DESC")
        return [_record(row) for row in await self._database.fetch(statement, *arguments)]


def _end(row: asyncpg.Record | None) -> ChainEnd:
    return ChainEnd() if row is None else ChainEnd(row["sequence"], row["hash"])


def _record(row: asyncpg.Record) -> Record:
    return Record(**dict(row))
