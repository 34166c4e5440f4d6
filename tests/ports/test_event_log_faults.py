"""The event log when consumers die, connections are cut, events are poison, or a notification is lost."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database
from tests.builders_event_log import ConnectAs, Log, empty_log, running, until_waiting
from tests.fakes_audit import an_event


@pytest.fixture
async def log(database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]) -> AsyncIterator[Log]:
    async with empty_log(database_url, connect_as, password_files) as log:
        yield log


# --- once -------------------------------------------------------------------------------------------------------


async def test_a_consumer_whose_connection_is_cut_in_mid_transaction_has_its_effect_once(
    log: Log, database_url: str
) -> None:
    tries = 0
    killer = await asyncpg.connect(database_url)

    async def write_and_be_cut_once(connection: Connection, events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        await log.write_effects(connection, events)
        if tries == 1:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            await killer.execute("SELECT pg_terminate_backend($1)", pid)
            await connection.fetchval("SELECT pg_sleep(5)")

    await log.append(an_event(subject="once"))
    async with running(log.consumer(write_and_be_cut_once)):
        effects = await log.until_effects(1)
        await asyncio.sleep(0.1)

    await killer.close()
    assert effects == await log.effects() == [("once", 1)]
    assert await log.owner.fetchval("SELECT count(*) FROM event_log.dead_letter") == 0


HANGING_CONSUMER = """
import asyncio, sys
from payflow.platform.eventlog import Consumer
from payflow.platform.postgres import Database

async def write_and_hang(connection, events):
    statement = "INSERT INTO audit.effect (event_id, subject, version) VALUES ($1, 'killed', 1)"
    for event in events:
        await connection.execute(statement, event.id)
    print("WRITTEN", flush=True)
    await asyncio.sleep(60)

async def main(url):
    database = await Database.connect(url=url, pool_size=2, application="doomed", schema="audit")
    consumer = Consumer(name="audit", topics=["payments"], handler=write_and_hang, database=database, listen_url=url)
    await consumer.run()

asyncio.run(main(sys.argv[1]))
"""


async def test_a_consumer_process_that_is_killed_in_mid_transaction_has_its_effect_once(log: Log) -> None:
    await log.append(an_event(subject="once"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HANGING_CONSUMER, log.url, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 20)
    process.kill()
    code = await process.wait()

    async with running(log.consumer()):
        effects = await log.until_effects(1)

    assert (line, code) == (b"WRITTEN\n", -signal.SIGKILL)
    assert effects == await log.effects() == [("once", 1)]


# --- what cannot be handled -------------------------------------------------------------------------------------


async def test_an_event_that_the_database_refuses_is_set_aside_and_the_rest_goes_on(log: Log) -> None:
    await log.append(an_event(subject="a\x00b"), an_event(subject="fine"))

    await log.drain(log.consumer())

    assert await log.effects() == [("fine", 1)]
    assert await log.owner.fetchval("SELECT count(*) FROM event_log.dead_letter") == 1


async def _dead_letters(log: Log) -> list[str]:
    return [row["cause"] for row in await log.owner.fetch("SELECT cause FROM event_log.dead_letter ORDER BY id")]


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT no_such_column FROM audit.effect",
        "SELECT * FROM account.accounts",
        "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'serialization_failure'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'query_canceled'; END $$",
        "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = 'out_of_memory'; END $$",
    ],
)
async def test_no_event_is_skipped_because_the_database_is_not_as_it_should_be(log: Log, statement: str) -> None:
    is_broken = True

    async def ask_first(connection: Connection, events: Sequence[Event]) -> None:
        if is_broken:
            await connection.execute(statement)
        await log.write_effects(connection, events)

    consumer = log.consumer(ask_first)
    await log.append(an_event(subject="a"), an_event(subject="b"))
    async with running(consumer):
        await until_waiting(consumer)
        before = (await log.effects(), await log.position())
        is_broken = False
        effects = await log.until_effects(2)
        await asyncio.sleep(0.1)

        assert await consumer.is_reading()
    assert before == ([], 0)
    assert effects == [("a", 1), ("b", 1)]
    assert await _dead_letters(log) == []


# --- in time ----------------------------------------------------------------------------------------------------


async def _seconds_to_effect(log: Log, subject: str) -> float:
    known = len(await log.effects())
    began = asyncio.get_running_loop().time()
    await log.append(an_event(subject=subject))
    await log.until_effects(known + 1)
    return asyncio.get_running_loop().time() - began


LISTENERS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN%'"


async def _listener_pid(log: Log) -> int:
    async with asyncio.timeout(5):
        while True:
            pid = await log.owner.fetchval(LISTENERS)
            if pid is not None:
                return int(pid)
            await asyncio.sleep(0.01)


async def test_on_an_idle_system_an_effect_follows_its_event_in_a_moment(log: Log) -> None:
    async with running(log.consumer()):
        await _listener_pid(log)
        await asyncio.sleep(0.1)
        took_s = sorted([await _seconds_to_effect(log, f"p{n}") for n in range(5)])

    assert took_s[2] < 0.25, took_s


async def test_a_lost_notification_delays_an_event_and_does_not_lose_it(log: Log) -> None:
    async with running(log.consumer()):
        pid = await _listener_pid(log)
        await log.owner.execute("SELECT pg_terminate_backend($1)", pid)
        took_s = await _seconds_to_effect(log, "unheard")
        other = await _listener_pid(log)

    assert took_s < 2.5
    assert other != pid


async def test_a_consumer_that_stops_leaves_no_connection_behind(log: Log) -> None:
    async with running(log.consumer()):
        await _listener_pid(log)

    # A backend needs a moment to notice that its client is gone.
    async with asyncio.timeout(3):
        pids = await log.owner.fetch(LISTENERS)
        while pids:
            await asyncio.sleep(0.01)
            pids = await log.owner.fetch(LISTENERS)
    assert pids == []


async def test_a_consumer_stops_also_where_the_cancellation_was_swallowed_on_the_way(log: Log) -> None:
    is_handling = asyncio.Event()

    async def swallow(_: Connection, __: Sequence[Event]) -> None:
        is_handling.set()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)

    await log.append(an_event())
    task = asyncio.create_task(log.consumer(swallow).run())
    await asyncio.wait_for(is_handling.wait(), 5)
    task.cancel()
    done, _ = await asyncio.wait([task], timeout=3)

    assert done == {task}
    assert task.cancelled()


async def test_a_failure_of_the_notification_does_not_reach_the_writer(log: Log, database_url: str) -> None:
    broken = await Database.connect(url="postgresql://nobody@127.0.0.1:9/none", pool_size=1, application="test")
    outbox = Outbox(broken)

    outbox.wake_consumers()
    assert outbox._wake_up is not None
    await asyncio.wait_for(outbox._wake_up, 5)

    with pytest.raises(PayflowError):
        await broken.ping()
    await broken.close()
