"""Several servers in one address: one that says nothing, one that refuses, one that is a standby, and the right one."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest

from payflow.kernel.errors import Unavailable
from payflow.platform.postgres import Database
from payflow.platform.servers import UNACKNOWLEDGED_MAX_S, Connector, addresses_of, wire_of
from tests.support.ports import free_ports
from tests.support.postgres_node import PostgresNode

ANSWER = "SELECT pg_is_in_recovery()"


@pytest.fixture
async def silent_port() -> AsyncIterator[int]:
    """Takes connections and never says a word, as nobody does whose machine is gone."""
    silent = await asyncio.start_server(lambda _reader, _writer: asyncio.sleep(60), "127.0.0.1", 0)
    yield silent.sockets[0].getsockname()[1]
    silent.close()


def url_of(primary: PostgresNode, *ports: int, attributes: str = "read-write") -> str:
    places = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"{primary.url().replace(f'127.0.0.1:{primary.port}', places)}?target_session_attrs={attributes}"


async def test_a_server_that_says_nothing_keeps_nobody_from_the_next(primary: PostgresNode, silent_port: int) -> None:
    database = await Database.connect(url=url_of(primary, silent_port, primary.port), pool_size=2, application="test")
    began_at = time.monotonic()
    first = await database.fetchval(ANSWER)
    first_s = time.monotonic() - began_at
    # Both connections of the pool at once: the second one begins with the server that answered.
    await asyncio.gather(database.fetchval("SELECT pg_sleep(0.2)"), database.fetchval("SELECT pg_sleep(0.2)"))
    await database.close()

    assert first is False
    assert first_s < 2
    assert time.monotonic() - began_at < 3


async def test_of_a_standby_and_a_primary_the_one_that_is_wanted_is_found(
    primary: PostgresNode, replica: PostgresNode
) -> None:
    (nobody,) = free_ports(1)
    for attributes, expected in (("read-write", False), ("standby", True)):
        url = url_of(primary, nobody, replica.port, primary.port, attributes=attributes)
        connection = await Connector(url)()
        assert await connection.fetchval(ANSWER) is expected
        await connection.close()


async def test_where_none_is_the_primary_it_is_unavailable(primary: PostgresNode, replica: PostgresNode) -> None:
    (nobody,) = free_ports(1)
    database = await Database.connect(url=url_of(primary, replica.port, nobody), pool_size=1, application="test")

    with pytest.raises(Unavailable):
        await database.ping()
    await database.close()


async def test_the_kernel_gives_up_a_server_that_vanishes(primary: PostgresNode) -> None:
    connection: asyncpg.Connection[asyncpg.Record] = await Connector(primary.url())()
    found = wire_of(connection)
    assert found is not None
    with socket.socket(fileno=os.dup(found.fileno())) as same:
        timeout_ms = same.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        is_kept_alive = same.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    await connection.close()

    assert timeout_ms == UNACKNOWLEDGED_MAX_S * 1000
    assert is_kept_alive


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://u:p@a:1,b:2/d?x=1", ["postgresql://u:p@a:1/d?x=1", "postgresql://u:p@b:2/d?x=1"]),
        ("postgresql://u@/d?host=%2Frun", ["postgresql://u@/d?host=%2Frun"]),
        ("postgresql:///d", ["postgresql:///d"]),
        ("postgresql://u@a,[::1]:5433/d?x=1", ["postgresql://u@a/d?x=1", "postgresql://u@[::1]:5433/d?x=1"]),
        ("postgresql://[::1]:5432,b/d", ["postgresql://[::1]:5432/d", "postgresql://b/d"]),
    ],
)
def test_an_address_names_its_servers(url: str, expected: list[str]) -> None:
    assert addresses_of(url) == expected
