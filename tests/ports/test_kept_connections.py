"""Connections that stay in hand between two uses: used again while they are whole, and never in anybody's way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from payflow.platform.kept_connections import KeptConnections
from tests.builders_postgres import pool


@asynccontextmanager
async def kept_of(url: str, *, size: int = 2, sweep_s: float = 30.0, **options: Any) -> AsyncIterator[KeptConnections]:
    made = await asyncpg.create_pool(dsn=url, min_size=0, max_size=size, **options)
    kept = KeptConnections(made, sweep_s=sweep_s)
    try:
        yield kept
    finally:
        await kept.close(timeout_s=2)


async def used(kept: KeptConnections, *, is_whole: bool = True, renews: bool = False) -> int:
    """Use a connection once: the process at its other end."""
    renewals = kept.renewals
    connection = await kept.take(timeout_s=2)
    backend: int = await connection.fetchval("SELECT pg_backend_pid()")
    if renews:
        await kept.renew()
    await kept.give_back(connection, is_whole=is_whole, renewals=renewals)
    return backend


async def test_the_next_use_has_the_same_connection(database_url: str) -> None:
    async with kept_of(database_url) as kept:
        backends = {await used(kept) for _ in range(5)}

        assert len(backends) == 1
        assert (kept.used, kept.idle, kept.waiting) == (0, 1, 0)


async def test_a_connection_that_was_lost_while_nobody_used_it_is_replaced(database_url: str) -> None:
    async with kept_of(database_url, size=1) as kept, pool(database_url) as admin:
        lost = await used(kept)
        await admin.execute("SELECT pg_terminate_backend($1, 2000)", lost)
        await asyncio.sleep(0.1)  # until the end has arrived here, too

        assert (kept.used, kept.idle) == (0, 0)
        assert await used(kept) != lost
        assert (kept.used, kept.idle) == (0, 1)


async def test_who_waits_gets_what_comes_back_however_many_there_are(database_url: str) -> None:
    async with kept_of(database_url, size=2) as kept:
        async with asyncio.timeout(10):
            backends = await asyncio.gather(*(used(kept) for _ in range(200)))

        assert len(set(backends)) <= 2
        assert (kept.used, kept.waiting) == (0, 0)


@pytest.mark.parametrize("renews_while_in_use", [True, False])
async def test_after_a_renewal_no_earlier_connection_is_used(database_url: str, renews_while_in_use: bool) -> None:
    async with kept_of(database_url) as kept:
        before = await used(kept, renews=renews_while_in_use)
        if not renews_while_in_use:
            await kept.renew()

        assert await used(kept) != before


async def test_after_an_error_the_pool_looks_at_the_connection_before_anybody_uses_it(database_url: str) -> None:
    seen: list[object] = []

    async def note(connection: object) -> None:
        seen.append(connection)

    async with kept_of(database_url, reset=note) as kept:
        await used(kept)
        assert not seen
        await used(kept, is_whole=False)
        assert len(seen) == 1


async def test_what_is_idle_goes_back_to_the_pool_after_a_while_and_is_closed_when_it_has_served_long(
    database_url: str,
) -> None:
    async with kept_of(database_url, sweep_s=0.05, max_queries=3) as kept:
        first = [await used(kept) for _ in range(4)]
        await asyncio.sleep(0.2)

        assert len(set(first)) == 1
        assert kept.idle == 0
        assert await used(kept) != first[0]


async def test_closing_waits_for_a_use_under_way_but_not_for_ever(database_url: str) -> None:
    made = await asyncpg.create_pool(dsn=database_url, min_size=0, max_size=2)
    kept = KeptConnections(made)
    await used(kept)
    held = await kept.take(timeout_s=2)

    async with asyncio.timeout(2):
        await kept.close(timeout_s=0.1)

    with pytest.raises(asyncpg.InterfaceError):
        await held.fetchval("SELECT 1")


async def test_who_is_cancelled_while_renewing_loses_no_connection(database_url: str) -> None:
    async with kept_of(database_url, size=3) as kept:
        await asyncio.gather(*(used(kept) for _ in range(3)))
        renewing = asyncio.create_task(kept.renew())
        await asyncio.sleep(0)
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)

        async with asyncio.timeout(5):
            held = [await kept.take(timeout_s=2) for _ in range(3)]
        for connection in held:
            await kept.give_back(connection, is_whole=True, renewals=kept.renewals)


async def test_what_is_taken_while_all_are_closed_is_not_kept(database_url: str) -> None:
    made = await asyncpg.create_pool(dsn=database_url, min_size=0, max_size=2)
    kept = KeptConnections(made)
    held = await kept.take(timeout_s=2)
    closing = asyncio.create_task(kept.close(timeout_s=5))
    await asyncio.sleep(0.05)

    await kept.give_back(held, is_whole=True, renewals=kept.renewals)

    async with asyncio.timeout(1):
        await closing
    assert kept.idle == 0
