"""The pool over a real PostgreSQL: collisions are repeated, losses are told in the family that says what to do."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import Context
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import asyncpg
import pytest

from payflow.kernel.errors import PayflowError, Rejection, Unavailable, UnknownOutcome
from payflow.platform.postgres import ConcurrencyConflict, Database, Queries, repeat_on_conflict, repeat_then_halve
from tests.conftest import ConnectAs, role_url
from tests.support.servers import with_database


@pytest.fixture(scope="module")
async def table(database_url: str) -> str:
    """A table of numbers 1 to 20 that every role may change."""
    owner = await asyncpg.connect(database_url)
    await owner.execute(
        "CREATE TABLE public.number (id int PRIMARY KEY, value int NOT NULL DEFAULT 0);"
        "INSERT INTO public.number SELECT generate_series(1, 20);"
        "GRANT SELECT, INSERT, UPDATE ON public.number TO PUBLIC"
    )
    await owner.close()
    return "public.number"


@asynccontextmanager
async def pool(url: str, *, size: int = 2, name: str = "test-pool") -> AsyncIterator[Database]:
    database = await Database.connect(url=url, pool_size=size, application=name)
    try:
        yield database
    finally:
        await database.close()


async def lock_in_order(database: Database, table: str, ids: Sequence[int], *, meet: asyncio.Barrier | None) -> None:
    """One transaction that changes rows one after the other; `meet` makes two of them collide after the first row."""
    async with database.transaction() as connection:
        for position, id_ in enumerate(ids):
            await connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = $1", id_)
            if position == 0 and meet is not None:
                await meet.wait()


async def test_a_deadlock_is_a_conflict_and_the_other_side_goes_through(database_url: str, table: str) -> None:
    meet = asyncio.Barrier(2)
    async with pool(database_url) as database:
        before = await database.fetchval(f"SELECT sum(value) FROM {table}")

        outcomes = await asyncio.gather(
            lock_in_order(database, table, [1, 2], meet=meet),
            lock_in_order(database, table, [2, 1], meet=meet),
            return_exceptions=True,
        )

        after = await database.fetchval(f"SELECT sum(value) FROM {table}")
    conflicts = [outcome for outcome in outcomes if isinstance(outcome, ConcurrencyConflict)]
    assert (len(conflicts), outcomes.count(None)) == (1, 1)
    assert after - before == 2


async def test_after_a_deadlock_the_batch_is_repeated_and_both_are_done(database_url: str, table: str) -> None:
    meet = asyncio.Barrier(2)
    async with pool(database_url) as database:
        before = await database.fetchval(f"SELECT sum(value) FROM {table}")

        async def work(ids: Sequence[int], first: list[bool]) -> list[int | PayflowError]:
            meeting = meet if first else None
            first.clear()
            await lock_in_order(database, table, ids, meet=meeting)
            return list(ids)

        answers = await asyncio.gather(
            repeat_then_halve(lambda ids, first=[True]: work(ids, first), [3, 4]),
            repeat_then_halve(lambda ids, first=[True]: work(ids, first), [4, 3]),
        )

        after = await database.fetchval(f"SELECT sum(value) FROM {table}")
    assert answers == [[3, 4], [4, 3]]
    assert after - before == 4


async def test_a_serialisation_failure_is_a_conflict_too(database_url: str, table: str) -> None:
    async with pool(database_url) as database:

        async def overtaken() -> None:
            async with database.transaction() as connection:
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                await connection.fetchval(f"SELECT value FROM {table} WHERE id = 5")
                async with pool(database_url) as other:
                    await asyncio.create_task(add_one(other, table, 5), context=Context())
                await connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = 5")

        with pytest.raises(ConcurrencyConflict):
            await overtaken()


async def add_one(database: Database, table: str, id_: int) -> None:
    await database.execute(f"UPDATE {table} SET value = value + 1 WHERE id = $1", id_)


class Colliding:
    """Work on a batch that collides as long as an item of `bad` is among more than `alone` items."""

    def __init__(self, bad: set[int], *, alone: bool = False) -> None:
        self.bad, self.alone = bad, alone
        self.batches: list[list[int]] = []

    async def __call__(self, items: Sequence[int]) -> list[int | PayflowError]:
        self.batches.append(list(items))
        if self.bad & set(items) and (len(items) > 1 or self.alone):
            raise ConcurrencyConflict("deadlock")
        return [item * 10 for item in items]


async def test_a_batch_that_goes_on_colliding_is_halved_until_its_neighbours_are_done() -> None:
    work = Colliding({3})

    answers = await repeat_then_halve(work, [1, 2, 3, 4])

    assert answers == [10, 20, 30, 40]
    assert work.batches == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [3, 4], [3, 4], [3], [4]]


async def test_an_item_that_collides_alone_is_answered_with_its_conflict_and_its_neighbours_with_theirs() -> None:
    work = Colliding({3}, alone=True)

    answers = await repeat_then_halve(work, [1, 2, 3])

    assert answers[:2] == [10, 20]
    assert isinstance(answers[2], ConcurrencyConflict)
    assert work.batches.count([3]) == 2


async def test_an_empty_batch_that_collides_ends() -> None:
    async def collide(items: Sequence[int]) -> list[int | PayflowError]:
        raise ConcurrencyConflict("deadlock")

    assert await repeat_then_halve(collide, []) == []


async def test_work_without_a_batch_is_repeated_twice_and_then_tells() -> None:
    tries: list[int] = []

    async def collide() -> None:
        tries.append(1)
        raise ConcurrencyConflict("deadlock")

    with pytest.raises(ConcurrencyConflict):
        await repeat_on_conflict(collide)
    assert len(tries) == 3


async def test_other_errors_are_not_repeated() -> None:
    tries: list[int] = []

    async def refuse(items: Sequence[int]) -> list[int | PayflowError]:
        tries.append(1)
        raise Rejection("no")

    with pytest.raises(Rejection):
        await repeat_then_halve(refuse, [1, 2])
    assert len(tries) == 1


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


async def test_a_server_that_is_not_there_is_unavailable_at_once() -> None:
    began = time.monotonic()

    async with pool("postgresql://nobody@127.0.0.1:9/nothing") as database:
        with pytest.raises(Unavailable):
            await database.ping()

    assert time.monotonic() - began < 2.3


async def test_a_wrong_password_and_an_unknown_database_are_unavailable(
    database_url: str, password_files: dict[str, Path]
) -> None:
    wrong = role_url(database_url, "kyc", {"kyc": password_files["account"]})

    for url in (wrong, database_url.replace("/test_", "/no_such_")):
        async with pool(url) as database:
            with pytest.raises(Unavailable):
                await database.ping()


class Proxy:
    """Stands between the client and the server's socket, and cuts the connection when it is told to.

    `cut_at`: what the client sends that is not passed on (`lost request`), or whose answer is not (`lost answer`).
    """

    def __init__(self, server_socket: str) -> None:
        self._server_socket = server_socket
        self.cut_at: bytes | None = None
        self.passes_the_request = False
        self.cuts = 0

    @asynccontextmanager
    async def listening(self, folder: Path) -> AsyncIterator[None]:
        path = folder / ".s.PGSQL.5432"
        server = await asyncio.start_unix_server(self._serve, path)
        try:
            yield
        finally:
            server.close()

    async def _serve(self, client: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        server, to_server = await asyncio.open_unix_connection(self._server_socket)
        answers = asyncio.create_task(self._pass_on(server, to_client))
        try:
            while data := await client.read(65536):
                if self.cut_at is not None and self.cut_at in data:
                    self.cuts += 1
                    if self.passes_the_request:
                        answers.cancel()
                        to_server.write(data)
                        await to_server.drain()
                        # The server does what it was asked; nobody hears of it.
                        await asyncio.sleep(0.3)
                    break
                to_server.write(data)
                await to_server.drain()
        finally:
            answers.cancel()
            to_client.close()
            to_server.close()

    async def _pass_on(self, server: asyncio.StreamReader, to_client: asyncio.StreamWriter) -> None:
        while data := await server.read(65536):
            to_client.write(data)
            await to_client.drain()


@asynccontextmanager
async def behind_a_proxy(database_url: str, folder: Path) -> AsyncIterator[tuple[Database, Proxy]]:
    """A pool whose connections can be cut between two words of the protocol."""
    (directory,) = parse_qs(urlsplit(database_url).query)["host"]
    proxy = Proxy(f"{directory}/.s.PGSQL.5432")
    proxied = database_url.replace(quote(directory, safe="/"), str(folder)).replace(directory, str(folder))
    async with proxy.listening(folder), pool(proxied) as database:
        await database.ping()
        yield database, proxy


@pytest.mark.parametrize(("is_passed_on", "changed_by"), [(True, 1), (False, 0)], ids=["lost answer", "lost request"])
async def test_a_connection_lost_during_a_commit_is_an_unknown_outcome_whatever_happened(
    database_url: str, table: str, server_dir: Path, is_passed_on: bool, changed_by: int
) -> None:
    folder = server_dir / f"proxy-{changed_by}"
    folder.mkdir()
    async with pool(database_url) as direct, behind_a_proxy(database_url, folder) as (database, proxy):
        before = await direct.fetchval(f"SELECT value FROM {table} WHERE id = 7")
        proxy.passes_the_request = is_passed_on

        async def change() -> None:
            async with database.transaction() as connection:
                await connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = 7")
                proxy.cut_at = b"COMMIT"

        with pytest.raises(UnknownOutcome):
            await change()

        after = await direct.fetchval(f"SELECT value FROM {table} WHERE id = 7")
        proxy.cut_at = None
        assert proxy.cuts == 1
        assert after - before == changed_by
        assert await database.fetchval("SELECT 1") == 1


async def test_a_connection_lost_before_the_commit_means_that_nothing_happened(
    database_url: str, table: str, server_dir: Path
) -> None:
    folder = server_dir / "proxy-before"
    folder.mkdir()
    async with pool(database_url) as direct, behind_a_proxy(database_url, folder) as (database, proxy):
        before = await direct.fetchval(f"SELECT value FROM {table} WHERE id = 8")

        async def change() -> None:
            async with database.transaction() as connection:
                await connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = 8")
                proxy.cut_at = b"pg_backend_pid"
                await connection.fetchval("SELECT pg_backend_pid()")

        with pytest.raises(Unavailable):
            await change()

        after = await direct.fetchval(f"SELECT value FROM {table} WHERE id = 8")
        assert proxy.cuts == 1
        assert after == before


async def test_a_backend_that_is_ended_is_unavailable_and_the_pool_makes_another(database_url: str) -> None:
    async with pool(database_url, name="ended") as database, pool(database_url) as admin:
        sleeping = asyncio.create_task(database.execute("SELECT pg_sleep(30)"))
        await asyncio.sleep(0.2)

        ended = await admin.fetchval(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'ended'"
        )

        assert ended == 1
        with pytest.raises(Unavailable):
            await sleeping
        assert await database.fetchval("SELECT 1") == 1


async def test_a_primary_that_became_a_standby_is_unavailable_and_the_next_connection_is_a_new_one(
    database_url: str, table: str
) -> None:
    async with pool(database_url, size=1) as database:
        before = await database.fetchval("SELECT pg_backend_pid()")
        # As every session is on a standby.
        await database.execute("SET default_transaction_read_only = on")

        with pytest.raises(Unavailable):
            await database.execute(f"UPDATE {table} SET value = value + 1 WHERE id = 9")

        await database.execute(f"UPDATE {table} SET value = value + 1 WHERE id = 9")
        assert await database.fetchval("SELECT pg_backend_pid()") != before


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


@pytest.mark.parametrize("wrong", ["password", "database"])
async def test_a_database_that_refuses_us_is_not_told_as_one_that_cannot_be_reached(
    database_url: str, password_files: dict[str, Path], wrong: str
) -> None:
    url = role_url(database_url, "kyc", password_files)
    if wrong == "password":
        url = url.replace(quote(password_files["kyc"].read_text()), "not-this-one")
    else:
        url = with_database(
            url, database="there_is_none", user="payflow_kyc", password=password_files["kyc"].read_text()
        )

    async with pool(url) as database:
        with pytest.raises(Unavailable, match="refuses the connection"):
            await database.ping()
