"""What payments cost in the database: statements, rows and WAL, read as its owner before and after."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Final

import asyncpg
import msgspec

from payflow.platform.postgres import Queries

# Sessions hand in what they counted when they have been idle for ten seconds, at the latest.
FLUSHED_AFTER_S: Final = 11.0
_ROLE_PREFIX: Final = "payflow_"
_SNIPPET: Final = 60

_HAS_STATEMENTS: Final = "SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'"
_STATEMENTS: Final = """
SELECT role.rolname AS role, known.query, known.calls, known.rows, known.wal_bytes::bigint AS wal_bytes
  FROM pg_stat_statements AS known
  JOIN pg_roles AS role ON role.oid = known.userid
 WHERE known.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
   AND starts_with(role.rolname, $1)
"""
_WAL: Final = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
_TABLES: Final = """
SELECT schemaname || '.' || relname AS name, n_tup_ins, n_tup_upd, n_tup_hot_upd, n_tup_del,
       pg_total_relation_size(relid) AS bytes
  FROM pg_stat_user_tables
"""

_COMMENT: Final = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_CONSTANT: Final = re.compile(r"\$\d+|'(?:[^']|'')*'|\b\d+(?:\.\d+)?\b|\b(?:true|false|null)\b", re.IGNORECASE)


class StatementFigures(msgspec.Struct, frozen=True, kw_only=True):
    """One statement of one service: how often it ran, the rows it returned or changed at its top, its WAL bytes."""

    service: str
    name: str
    calls: int
    rows: int
    wal_bytes: int


class DatabaseFigures(msgspec.Struct, frozen=True, kw_only=True):
    """A step's statements, those of the work afterwards included. `payments`: acknowledged ones, to divide by.

    `wal_bytes` is all WAL that the server wrote meanwhile, autovacuum and checkpoints included.
    """

    payments: int
    wal_bytes: int
    statements: list[StatementFigures]


class TableFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Rows written into one table; `hot_updated` is the part of `updated` that changed no index.

    `bytes`: by how much the table grew on disk, with its indexes; 0 in results from before that was measured.
    """

    name: str
    inserted: int
    updated: int
    hot_updated: int
    deleted: int
    bytes: int = 0

    @property
    def written(self) -> int:
        """Row versions written."""
        return self.inserted + self.updated + self.deleted


class TablesFigures(msgspec.Struct, frozen=True, kw_only=True):
    """Rows written over the whole run, the warm-up included; `payments` went through, acknowledged or not."""

    payments: int
    tables: list[TableFigures]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """The counters at one instant: calls, rows and WAL bytes by service and statement, and the end of the WAL."""

    statements: dict[tuple[str, str], tuple[int, int, int]]
    wal_bytes: int


async def switch_on(url: str, *, may_create: bool) -> bool:
    """Make the statements' counters readable where that is allowed; tells whether they are."""
    connection = await asyncpg.connect(url)
    try:
        if may_create:
            try:
                await connection.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            except asyncpg.PostgresError:
                return False
        try:
            # Installed is not enough: the server must have loaded it at its start.
            return bool(await connection.fetchval(_HAS_STATEMENTS)) and bool(await connection.fetch(_STATEMENTS, ""))
        except asyncpg.PostgresError:
            return False
    finally:
        await connection.close()


async def read_counters(url: str, *, with_statements: bool) -> Reading:
    """What the server has counted up to now."""
    names = known_names()
    found: dict[tuple[str, str], tuple[int, int, int]] = {}
    connection = await asyncpg.connect(url)
    try:
        for row in await connection.fetch(_STATEMENTS, _ROLE_PREFIX) if with_statements else []:
            key = (row["role"].removeprefix(_ROLE_PREFIX), name_of(row["query"], names))
            calls, rows, wal = found.get(key, (0, 0, 0))
            found[key] = (calls + row["calls"], rows + row["rows"], wal + row["wal_bytes"])
        return Reading(statements=found, wal_bytes=int(await connection.fetchval(_WAL)))
    finally:
        await connection.close()


def between(before: Reading, after: Reading, *, payments: int) -> DatabaseFigures:
    """What came to pass between two readings; the statements that wrote most come first, then the most frequent."""
    statements = []
    for (service, name), counted in after.statements.items():
        earlier = before.statements.get((service, name), (0, 0, 0))
        calls, rows, wal = (now - then for now, then in zip(counted, earlier, strict=True))
        if calls > 0:
            statements.append(StatementFigures(service=service, name=name, calls=calls, rows=rows, wal_bytes=wal))
    statements.sort(key=lambda each: (-each.wal_bytes, -each.calls))
    return DatabaseFigures(payments=payments, wal_bytes=after.wal_bytes - before.wal_bytes, statements=statements)


async def read_tables(url: str, *, flushed: bool) -> dict[str, TableFigures]:
    """Rows written so far by table; `flushed`: wait first until every idle session has handed in its counts."""
    if flushed:
        await asyncio.sleep(FLUSHED_AFTER_S)
    connection = await asyncpg.connect(url)
    try:
        return {row["name"]: _table(row) for row in await connection.fetch(_TABLES)}
    finally:
        await connection.close()


def _table(row: asyncpg.Record) -> TableFigures:
    return TableFigures(
        name=row["name"],
        inserted=row["n_tup_ins"],
        updated=row["n_tup_upd"],
        hot_updated=row["n_tup_hot_upd"],
        deleted=row["n_tup_del"],
        bytes=row["bytes"],
    )


def tables_between(
    before: Mapping[str, TableFigures], after: Mapping[str, TableFigures], *, payments: int
) -> TablesFigures:
    """Rows written between two readings, the most written table first; tables without any are left out."""
    none = TableFigures(name="", inserted=0, updated=0, hot_updated=0, deleted=0)
    tables = []
    for name, now in after.items():
        then = before.get(name, none)
        tables.append(
            TableFigures(
                name=name,
                inserted=now.inserted - then.inserted,
                updated=now.updated - then.updated,
                hot_updated=now.hot_updated - then.hot_updated,
                deleted=now.deleted - then.deleted,
                bytes=now.bytes - then.bytes,
            )
        )
    written = sorted((table for table in tables if table.written > 0), key=lambda table: (-table.written, table.name))
    return TablesFigures(payments=payments, tables=written)


def known_names() -> dict[str, str]:
    """The names of all statements of the product's query files, by their text without constants and blanks."""
    source = Path(str(resources.files("payflow"))).parent
    files = sorted(source.rglob("queries.sql"))
    return {
        _without_constants(getattr(queries, name)): name
        for queries in (Queries(file.read_text(encoding="utf-8")) for file in files)
        for name in queries.names()
    }


def name_of(statement: str, names: Mapping[str, str]) -> str:
    """A statement's name in its query file, or how it begins."""
    text = _without_constants(statement)
    return names.get(text) or (text if len(text) <= _SNIPPET else f"{text[:_SNIPPET]}...")


def _without_constants(statement: str) -> str:
    words: Iterable[str] = _CONSTANT.sub("?", _COMMENT.sub(" ", statement)).split()
    return " ".join(words).rstrip("; ")
