"""Connections that the server ends, idle or at work: always one of the families of errors, never the driver's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from pathlib import Path

import asyncpg
import pytest

from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.platform.postgres import Database
from tests.conftest import ConnectAs, role_url


async def terminate_all(admin: asyncpg.Connection) -> None:
    await admin.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid() AND application_name = 'test'"
    )


async def ask(database: Database, *, until: float, odd: list[Exception], answered: list[int]) -> None:
    """Ask single statements and transactions in turn; notes every error that callers do not know what to do with."""
    while time.monotonic() < until:
        try:
            await database.fetchval("SELECT count(*) FROM generate_series(1, 2000)")
            async with database.transaction() as connection:
                await connection.fetchval("SELECT 1")
                await connection.fetchval("SELECT 2")
            answered.append(1)
        except (Unavailable, UnknownOutcome):
            await asyncio.sleep(0)
        except Exception as error:
            odd.append(error)


async def test_a_lost_connection_is_told_as_unavailable_or_unknown(database_url: str, connect_as: ConnectAs) -> None:
    database = await connect_as("account")
    admin = await asyncpg.connect(database_url)
    odd: list[Exception] = []
    answered: list[int] = []
    until = time.monotonic() + 1.5

    askers = [asyncio.create_task(ask(database, until=until, odd=odd, answered=answered)) for _ in range(8)]
    while time.monotonic() < until:
        await terminate_all(admin)
        await asyncio.sleep(0.01)
    await asyncio.gather(*askers)
    with contextlib.suppress(Exception):
        await admin.close()

    assert odd == []
    assert await database.fetchval("SELECT 1") == 1
    assert answered


@pytest.mark.parametrize("ends_by", ["cancellation", "time"])
async def test_a_server_that_is_silent_replaces_neither_a_cancellation_nor_what_is_said_of_it(
    database_url: str, password_files: dict[str, Path], ends_by: str
) -> None:
    url = role_url(database_url, "account", password_files)
    database = await Database.connect(url=url, pool_size=1, application="silent", command_timeout_s=0.5)
    pid = await database.fetchval("SELECT pg_backend_pid()")
    os.kill(pid, signal.SIGSTOP)
    try:
        asking = asyncio.create_task(database.fetchval("SELECT 1"))
        if ends_by == "cancellation":
            await asyncio.sleep(0.2)
            asking.cancel()
        (outcome,) = await asyncio.gather(asking, return_exceptions=True)
    finally:
        os.kill(pid, signal.SIGCONT)
        await database.close()

    expected = asyncio.CancelledError if ends_by == "cancellation" else Unavailable
    assert isinstance(outcome, expected), repr(outcome)
