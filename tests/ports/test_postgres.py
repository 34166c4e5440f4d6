"""The pool over a real PostgreSQL: one connection each, one transaction each, and what goes in comes out."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextvars import Context

import asyncpg
import pytest

from payflow.kernel.errors import Rejection, Unavailable
from payflow.platform.postgres import Queries
from tests.builders_postgres import add_one, number_table, pool
from tests.conftest import ConnectAs


@pytest.fixture(scope="module")
async def table(database_url: str) -> str:
    return await number_table(database_url)


async def test_a_second_connection_while_holding_one_is_a_bug_and_raises(connect_as: ConnectAs) -> None:
    database = await connect_as("kyc")

    async with database.transaction():
        with pytest.raises(RuntimeError, match="second connection"):
            await database.fetchval("SELECT 1")

    assert await database.fetchval("SELECT 1") == 1


async def test_a_block_that_raises_changes_nothing(database_url: str, table: str) -> None:
    async with pool(database_url) as database:
        before = await database.fetchval(f"SELECT value FROM {table} WHERE id = 6")

        async def refuse() -> None:
            async with database.transaction() as connection:
                await connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = 6")
                raise Rejection("no")

        with pytest.raises(Rejection):
            await refuse()

        assert await database.fetchval(f"SELECT value FROM {table} WHERE id = 6") == before


async def test_a_cancelled_use_case_gives_its_connection_back(database_url: str) -> None:
    async with pool(database_url, size=1) as database:
        sleeping = asyncio.create_task(database.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.2)

        sleeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sleeping

        assert await database.fetchval("SELECT 1") == 1


async def test_an_exhausted_pool_is_unavailable_within_two_seconds_and_recovers(database_url: str) -> None:
    async with pool(database_url, size=2) as database:
        busy = [asyncio.create_task(database.execute("SELECT pg_sleep(2.6)")) for _ in range(2)]
        await asyncio.sleep(0.1)
        began = time.monotonic()

        with pytest.raises(Unavailable):
            await database.fetchval("SELECT 1")

        assert 1.5 <= time.monotonic() - began <= 2.3
        await asyncio.gather(*busy)
        assert await database.fetchval("SELECT 1") == 1


async def test_a_read_only_transaction_sees_one_instant_and_cannot_write(database_url: str, table: str) -> None:
    async with (
        pool(database_url) as database,
        pool(database_url) as other,
        database.transaction(is_read_only=True) as connection,
    ):
        first = await connection.fetchval(f"SELECT value FROM {table} WHERE id = 9")
        await asyncio.create_task(add_one(other, table, 9), context=Context())
        second = await connection.fetchval(f"SELECT value FROM {table} WHERE id = 9")
        with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
            await connection.execute(f"UPDATE {table} SET value = 0 WHERE id = 9")

    assert first == second


async def test_json_comes_back_as_it_went_in(database_url: str) -> None:
    document = {"a": [1, None, "ü", True], "amount": "1000.00"}

    async with pool(database_url) as database:
        assert await database.fetchval("SELECT $1::jsonb", document) == document
        assert await database.fetchval("SELECT NULL::jsonb") is None


@pytest.mark.parametrize("array", [[1, None, 3], (1, None, 3), {1: "a", None: "b", 3: "c"}.keys()])
async def test_a_list_and_what_is_like_one_is_an_array(database_url: str, array: object) -> None:
    async with pool(database_url) as database:
        assert await database.fetchval("SELECT $1::bigint[]", array) == [1, None, 3]
        assert await database.fetchval("SELECT cardinality($1::text[])", {"a", "b"}) == 2
        assert await database.fetchval("SELECT $1::bigint[]", [[1, 2], [3, 4]]) == [[1, 2], [3, 4]]


async def test_anything_else_is_refused_as_no_array_without_a_question_to_each_element(database_url: str) -> None:
    async with pool(database_url) as database:
        with pytest.raises(asyncpg.DataError, match="a sized iterable container expected"):
            await database.fetchval("SELECT $1::bigint[]", deque([1, 2, 3]))
        assert await database.fetchval("SELECT cardinality($1::text[])", ["still", "good"]) == 2


def test_queries_are_found_by_their_names() -> None:
    queries = Queries("-- a note --\n\n-- first --\n-- Why.\nSELECT 1;\n\n-- second_one --\nSELECT 2;\n")

    assert queries.names() == ["first", "second_one"]
    assert queries.second_one == "SELECT 2;"
    with pytest.raises(AttributeError, match="no query is named third"):
        _ = queries.third
    with pytest.raises(ValueError, match="two queries are named first"):
        Queries("-- first --\nSELECT 1;\n-- first --\nSELECT 2;\n")
