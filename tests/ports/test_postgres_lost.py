"""Connections to a real PostgreSQL that are lost or refused are told in the family that says what to do."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.platform.postgres import Database
from tests.builders_postgres import number_table, pool
from tests.conftest import role_url
from tests.support.servers import with_database


@pytest.fixture(scope="module")
async def table(database_url: str) -> str:
    return await number_table(database_url)


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
