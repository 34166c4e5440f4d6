"""What the bench reads and writes in the database itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta

import asyncpg

from payflow.platform.postgres import Database
from payflow.run.invariants.check import check_database
from payflow.services.risk import store as risk_store
from payflow.services.risk.store import PostgresStore
from payflow_dev.bench.database import (
    between,
    known_names,
    name_of,
    read_counters,
    read_tables,
    switch_on,
    tables_between,
)
from payflow_dev.bench.population import make_customers
from payflow_dev.bench.velocity import give_past

ConnectAs = Callable[[str], Awaitable[Database]]
CUSTOMERS = make_customers(count=2, run_id="abc123", seed=1)


async def test_a_long_day_is_as_long_as_asked_and_as_risk_would_have_stored_it(database_url: str) -> None:
    await give_past(url=database_url, customers=CUSTOMERS, payments=500, tick=lambda _note: None)

    owner = await asyncpg.connect(database_url, server_settings={"search_path": "risk"})
    since = datetime.now(UTC) - timedelta(hours=24)
    names = [customer.customer_id for customer in CUSTOMERS]
    counted = await owner.fetch("SELECT payments FROM count_recent($1, $2, 1000)", names, since)
    levels = await owner.fetch(
        "SELECT level, points, count(*) FROM assessment WHERE customer_id = $1 GROUP BY level, points ORDER BY level",
        names[0],
    )
    ids = await owner.fetchval("SELECT count(DISTINCT payment_id) FROM assessment")
    await owner.close()
    assert [row["payments"] for row in counted] == [500, 500]
    assert [tuple(row) for row in levels] == [("LOW", 0, 5), ("MEDIUM", 25, 495)]
    assert ids == 1000


async def test_a_long_day_breaks_no_rule(database_url: str) -> None:
    await give_past(url=database_url, customers=CUSTOMERS, payments=50, tick=lambda _note: None)

    findings = await check_database(database_url, quiet_within=timedelta(seconds=30))

    assert [finding.words for finding in findings if not finding.is_kept] == []


async def test_statements_rows_and_wal_are_counted_by_service_and_name(
    database_url: str, connect_as: ConnectAs
) -> None:
    assert await switch_on(database_url, may_create=True)
    store = PostgresStore(database=await connect_as("risk"))
    await store.find([])
    before = await read_counters(database_url, with_statements=True)

    for _ in range(3):
        await store.find([])
    await give_past(url=database_url, customers=CUSTOMERS, payments=10, tick=lambda _note: None)

    cost = between(before, await read_counters(database_url, with_statements=True), payments=10)
    assert {(each.service, each.name): each.calls for each in cost.statements}["risk", "find"] == 3
    assert cost.wal_bytes > 1_000
    assert "postgres" not in {each.service for each in cost.statements}


async def test_rows_are_counted_by_table(database_url: str) -> None:
    before = await read_tables(database_url, flushed=False)

    await give_past(url=database_url, customers=CUSTOMERS, payments=30, tick=lambda _note: None)

    written = tables_between(before, await read_tables(database_url, flushed=True), payments=30)
    (table,) = [table for table in written.tables if table.name == "risk.assessment"]
    assert (table.inserted, table.updated, table.deleted, table.written) == (60, 0, 0, 60)


def test_a_statement_is_known_by_its_name_however_its_constants_are_written() -> None:
    names = known_names()
    text = risk_store.queries.stop_counting

    rewritten = "-- a note\n" + text.replace("false", "$2").replace("UPDATE", "UPDATE \n /* as told */").rstrip(";")
    assert name_of(text, names) == "stop_counting"
    assert name_of(rewritten, names) == "stop_counting"


def test_a_statement_without_a_name_is_told_by_its_beginning() -> None:
    assert name_of("SELECT   1", {}) == "SELECT ?"
    assert len(name_of("SELECT column_of_a_table FROM " + "a_very_long_name_of_a_table_" * 4, {})) == 63
