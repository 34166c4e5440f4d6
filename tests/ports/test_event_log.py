"""The event log on a real PostgreSQL: nothing skipped, nothing done twice, whatever is killed or comes late."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.eventlog import Consumer, EventHandler, Outbox
from payflow.platform.eventlog.consumer import drop_old_batches, types_of
from payflow.platform.postgres import Connection, Database
from tests.builders import new_id
from tests.conftest import role_url
from tests.fakes_audit import an_event

ConnectAs = Callable[[str], Awaitable[Database]]
Owner: TypeAlias = "asyncpg.Connection[Any]"

PAYMENTS = ["payments"]


class Log:
    """The event log of one test: a writer, a table for effects, and consumers of it."""

    def __init__(self, *, owner: Owner, writer: Database, reader: Database, url: str) -> None:
        self.owner = owner
        self.writer = writer
        self.outbox = Outbox(writer)
        self.reader = reader
        self.url = url

    async def append(self, *events: Event) -> None:
        """Append events as one batch, and wake the consumers."""
        async with self.writer.transaction() as connection:
            await self.outbox.append(connection, events)
        self.outbox.wake_consumers()

    def consumer(
        self,
        handler: EventHandler | None = None,
        *,
        name: str = "audit",
        topics: Sequence[str] = PAYMENTS,
        database: Database | None = None,
    ) -> Consumer:
        return Consumer(
            name=name,
            topics=topics,
            handler=handler or self.write_effects,
            database=database or self.reader,
            listen_url=self.url,
        )

    async def write_effects(self, connection: Connection, events: Sequence[Event]) -> None:
        """A handler: one row per event, in the consumer's transaction."""
        await connection.executemany(
            "INSERT INTO audit.effect (event_id, subject, version) VALUES ($1, $2, $3)",
            [(event.id, event.subject, event.version) for event in events],
        )

    async def effects(self) -> list[tuple[str, int]]:
        """Subject and version of each effect, in the order of the effects."""
        rows = await self.owner.fetch("SELECT subject, version FROM audit.effect ORDER BY id")
        return [(row["subject"], row["version"]) for row in rows]

    async def drain(self, consumer: Consumer) -> None:
        """Step until there is nothing left to do."""
        async with asyncio.timeout(10):
            while await consumer.step():
                pass

    async def until_effects(self, count: int, *, seconds: float = 5.0) -> list[tuple[str, int]]:
        async with asyncio.timeout(seconds):
            while True:
                effects = await self.effects()
                if len(effects) >= count:
                    return effects
                await asyncio.sleep(0.005)

    async def position(self, name: str = "audit") -> int:
        return int(await self.owner.fetchval("SELECT position FROM event_log.consumer WHERE name = $1", name) or 0)


@pytest.fixture
async def log(database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]) -> AsyncIterator[Log]:
    owner: Owner = await asyncpg.connect(database_url)
    await owner.execute(
        """
        TRUNCATE event_log.batch, event_log.consumer, event_log.dead_letter;
        UPDATE event_log.log_end SET position = 0;
        DROP TABLE IF EXISTS audit.effect;
        CREATE TABLE audit.effect (
            id bigint GENERATED ALWAYS AS IDENTITY, event_id uuid NOT NULL, subject text NOT NULL, version int NOT NULL
        );
        GRANT SELECT, INSERT ON audit.effect TO payflow_audit;
        """
    )
    writer, reader = await connect_as("account"), await connect_as("audit")
    yield Log(owner=owner, writer=writer, reader=reader, url=role_url(database_url, "audit", password_files))
    await owner.close()


@asynccontextmanager
async def running(*consumers: Consumer) -> AsyncIterator[list[asyncio.Task[None]]]:
    tasks = [asyncio.create_task(consumer.run()) for consumer in consumers]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def a_subjects_events(subject: str, versions: range) -> list[Event]:
    return [an_event(subject=subject, version=version) for version in versions]


# --- writing ----------------------------------------------------------------------------------------------------


async def test_an_event_has_its_effect_with_everything_that_it_said(log: Log) -> None:
    seen: list[Event] = []

    async def keep(_: Connection, events: Sequence[Event]) -> None:
        seen.extend(events)

    event = an_event(data={"amount_minor": 2**53 + 1, "path": ["RECEIVED", "COMPLETED"], "reason": None})
    await log.append(event)

    await log.drain(log.consumer(keep))

    assert seen == [event]


async def test_an_event_of_a_transaction_that_rolls_back_never_happened(log: Log) -> None:
    async def append_and_fail() -> None:
        async with log.writer.transaction() as connection:
            await log.outbox.append(connection, [an_event(subject="undone")])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await append_and_fail()
    await log.append(an_event(subject="done"))

    await log.drain(log.consumer())

    assert await log.effects() == [("done", 1)]


async def test_appending_nothing_writes_nothing(log: Log) -> None:
    await log.append()

    assert await log.owner.fetchval("SELECT count(*) FROM event_log.batch") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM event_log.batch",
        "UPDATE event_log.batch SET position = 1",
        "DELETE FROM event_log.batch",
        "SELECT event_log.number_batches(10)",
        "SELECT event_log.drop_old_batches(now())",
        "UPDATE event_log.consumer SET position = 0",
    ],
)
async def test_a_service_that_only_writes_may_do_nothing_else(connect_as: ConnectAs, statement: str) -> None:
    account = await connect_as("account")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await account.execute(statement)


# --- order ------------------------------------------------------------------------------------------------------


async def test_a_transaction_that_commits_late_is_not_skipped(log: Log) -> None:
    consumer = log.consumer()
    late = await asyncpg.connect(log.url)
    transaction = late.transaction()
    await transaction.start()
    await log.outbox.append(late, [an_event(subject="begun first")])  # type: ignore[arg-type]
    await log.append(an_event(subject="committed first"))

    await log.drain(consumer)
    before = await log.effects()
    await transaction.commit()
    await late.close()
    await log.drain(consumer)

    assert before == [("committed first", 1)]
    assert await log.effects() == [("committed first", 1), ("begun first", 1)]


async def test_no_event_is_skipped_while_many_commit_at_once(log: Log) -> None:
    async def write(subject: str) -> None:
        for version in range(1, 11):
            async with log.writer.transaction() as connection:
                await log.outbox.append(connection, [an_event(subject=subject, version=version)])
                await asyncio.sleep(0.001 * (version % 3))

    async with running(log.consumer()):
        await asyncio.gather(*(write(f"payment-{n}") for n in range(4)))
        effects = await log.until_effects(40)

    assert len(effects) == 40
    for n in range(4):
        assert [version for subject, version in effects if subject == f"payment-{n}"] == list(range(1, 11))


async def test_a_long_transaction_elsewhere_does_not_hold_the_log_back(log: Log) -> None:
    elsewhere = await asyncpg.connect(log.url)
    await elsewhere.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await elsewhere.execute("INSERT INTO audit.effect (event_id, subject, version) VALUES ($1, 'x', 0)", new_id())

    await log.append(an_event(subject="meanwhile"))
    await log.drain(log.consumer())

    assert await log.effects() == [("meanwhile", 1)]
    await elsewhere.close()


async def test_the_events_of_one_subject_stay_in_order_over_batches(log: Log) -> None:
    for start in (1, 4, 7):
        await log.append(*a_subjects_events("payment", range(start, start + 3)))

    await log.drain(log.consumer())

    assert await log.effects() == [("payment", version) for version in range(1, 10)]


async def test_positions_are_given_without_gaps(log: Log) -> None:
    for _ in range(5):
        await log.append(an_event())

    await asyncio.gather(*(log.drain(log.consumer(name=name)) for name in ("audit", "risk")))

    rows = await log.owner.fetch("SELECT position FROM event_log.batch ORDER BY id")
    assert [row["position"] for row in rows] == [1, 2, 3, 4, 5]


# --- reading ----------------------------------------------------------------------------------------------------


async def test_a_consumer_hears_only_its_own_topics(log: Log) -> None:
    await log.append(an_event(subject="p", type="payment.completed"), an_event(subject="c", type="customer.created"))
    await log.append(an_event(subject="s", type="security.signed_in"))

    await log.drain(log.consumer(topics=["customers"]))

    assert await log.effects() == [("c", 1)]
    assert await log.position() == 2


def test_a_topic_that_does_not_exist_is_a_mistake_found_at_the_start() -> None:
    with pytest.raises(KeyError):
        types_of(["paymints"])


async def test_each_consumer_has_a_position_of_its_own(log: Log) -> None:
    await log.append(an_event(subject="first"))
    await log.drain(log.consumer(name="audit"))
    await log.append(an_event(subject="second"))

    await log.drain(log.consumer(name="risk"))

    assert await log.effects() == [("first", 1), ("first", 1), ("second", 1)]
    assert (await log.position("audit"), await log.position("risk")) == (1, 2)


async def test_more_batches_than_one_read_takes_are_all_read(log: Log) -> None:
    async with log.writer.transaction() as connection:
        for version in range(1, 1101):
            await log.outbox.append(connection, [an_event(subject="payment", version=version)])

    await log.drain(log.consumer())

    assert await log.effects() == [("payment", version) for version in range(1, 1101)]


async def test_after_a_commit_the_listener_of_the_consumer_is_told_what_was_handled(log: Log) -> None:
    told: list[str] = []
    consumer = Consumer(
        name="audit",
        topics=PAYMENTS,
        handler=log.write_effects,
        database=log.reader,
        listen_url=log.url,
        after_commit=lambda events: told.extend(event.subject for event in events),
    )
    await log.append(an_event(subject="a"), an_event(subject="b"))

    await log.drain(consumer)

    assert told == ["a", "b"]


# --- once -------------------------------------------------------------------------------------------------------


async def test_a_consumer_that_is_cancelled_in_mid_transaction_has_its_effect_once(log: Log) -> None:
    is_written = asyncio.Event()

    async def write_and_hang(connection: Connection, events: Sequence[Event]) -> None:
        await log.write_effects(connection, events)
        is_written.set()
        await asyncio.sleep(60)

    await log.append(an_event(subject="once"))
    async with running(log.consumer(write_and_hang)):
        await asyncio.wait_for(is_written.wait(), 5)
    before = await log.effects()
    await log.drain(log.consumer())

    assert before == []
    assert await log.effects() == [("once", 1)]


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


async def test_two_processes_of_one_consumer_share_the_work_without_doubling_it(
    log: Log, connect_as: ConnectAs
) -> None:
    first = log.consumer(database=await connect_as("audit"))
    second = log.consumer(database=await connect_as("audit"))

    async with running(first, second):
        for version in range(1, 31):
            await log.append(an_event(subject="payment", version=version))
        await log.until_effects(30)
        await asyncio.sleep(0.1)

    assert await log.effects() == [("payment", version) for version in range(1, 31)]


async def test_when_the_process_that_reads_dies_the_other_takes_over(log: Log, connect_as: ConnectAs) -> None:
    is_stuck = asyncio.Event()

    async def hang(_: Connection, __: Sequence[Event]) -> None:
        is_stuck.set()
        await asyncio.sleep(60)

    async with running(log.consumer(hang, database=await connect_as("audit"))) as (stuck,):
        await log.append(an_event(subject="handed over"))
        await asyncio.wait_for(is_stuck.wait(), 5)
        async with running(log.consumer(database=await connect_as("audit"))):
            await asyncio.sleep(0.1)
            before = await log.effects()
            stuck.cancel()
            effects = await log.until_effects(1)

    assert before == []
    assert effects == [("handed over", 1)]


# --- what cannot be handled -------------------------------------------------------------------------------------


async def test_an_event_that_always_fails_is_set_aside_and_the_rest_goes_on(log: Log) -> None:
    async def refuse_poison(connection: Connection, events: Sequence[Event]) -> None:
        await log.write_effects(connection, events)
        if any(event.subject == "poison" for event in events):
            raise ValueError("cannot be read")

    poison = an_event(subject="poison")
    await log.append(an_event(subject="before"), poison, an_event(subject="after"))
    await log.append(an_event(subject="later"))

    await log.drain(log.consumer(refuse_poison))

    assert await log.effects() == [("before", 1), ("after", 1), ("later", 1)]
    (letter,) = await log.owner.fetch("SELECT consumer, event_id, position, cause FROM event_log.dead_letter")
    assert (letter["consumer"], letter["event_id"], letter["position"]) == ("audit", poison.id, 2)
    assert letter["cause"] == "ValueError('cannot be read')"


async def test_an_event_that_the_database_refuses_is_set_aside_and_the_rest_goes_on(log: Log) -> None:
    await log.append(an_event(subject="a\x00b"), an_event(subject="fine"))

    await log.drain(log.consumer())

    assert await log.effects() == [("fine", 1)]
    assert await log.owner.fetchval("SELECT count(*) FROM event_log.dead_letter") == 1


async def test_an_event_that_fails_for_a_moment_is_not_set_aside(log: Log) -> None:
    tries = 0

    async def fail_twice(connection: Connection, events: Sequence[Event]) -> None:
        nonlocal tries
        tries += 1
        if tries <= 2:
            raise ValueError("for a moment")
        await log.write_effects(connection, events)

    await log.append(an_event(subject="patience"))

    await log.drain(log.consumer(fail_twice))

    assert await log.effects() == [("patience", 1)]
    assert await log.owner.fetchval("SELECT count(*) FROM event_log.dead_letter") == 0


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


async def test_a_consumer_waits_until_its_database_is_back(log: Log, password_files: dict[str, Path]) -> None:
    await log.owner.execute("ALTER ROLE payflow_audit NOLOGIN")
    try:
        database = await Database.connect(url=log.url, pool_size=2, application="test", schema="audit")
        async with running(log.consumer(database=database)):
            await log.append(an_event(subject="later"))
            await asyncio.sleep(0.2)
            before = await log.effects()
            await log.owner.execute("ALTER ROLE payflow_audit LOGIN")
            effects = await log.until_effects(1)
        await database.close()
    finally:
        await log.owner.execute("ALTER ROLE payflow_audit LOGIN")

    assert before == []
    assert effects == [("later", 1)]


# --- forgetting -------------------------------------------------------------------------------------------------


async def test_only_what_all_consumers_have_read_and_what_is_old_is_dropped(log: Log) -> None:
    for subject in ("old, read by both", "old, read by one", "young"):
        await log.append(an_event(subject=subject))
        if subject == "old, read by both":
            await log.drain(log.consumer(name="risk"))
    await log.drain(log.consumer(name="audit"))
    await log.owner.execute("UPDATE event_log.batch SET created_at = now() - interval '91 days' WHERE position <= 2")

    first = await drop_old_batches(database=log.reader, retention=timedelta(days=90))
    await log.drain(log.consumer(name="risk"))
    second = await drop_old_batches(database=log.reader, retention=timedelta(days=90))

    assert (first, second) == (1, 1)
    rows = await log.owner.fetch("SELECT position FROM event_log.batch ORDER BY position")
    assert [row["position"] for row in rows] == [3]


async def test_nothing_is_dropped_before_anybody_has_read(log: Log) -> None:
    await log.append(an_event())
    await log.owner.execute("UPDATE event_log.batch SET created_at = now() - interval '1 year'")

    assert await drop_old_batches(database=log.reader, retention=timedelta(days=1)) == 0


async def test_a_failure_of_the_notification_does_not_reach_the_writer(log: Log, database_url: str) -> None:
    broken = await Database.connect(url="postgresql://nobody@127.0.0.1:9/none", pool_size=1, application="test")
    outbox = Outbox(broken)

    outbox.wake_consumers()
    assert outbox._wake_up is not None
    await asyncio.wait_for(outbox._wake_up, 5)

    with pytest.raises(PayflowError):
        await broken.ping()
    await broken.close()
