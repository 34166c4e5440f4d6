"""The event log on a real PostgreSQL: what is written, in what order it is read, and what is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from payflow.platform.eventlog.consumer import drop_old_batches
from payflow.platform.eventlog.delivery import types_of
from tests.builders import new_id
from tests.builders_event_log import ConnectAs, Log, empty_log
from tests.fakes_audit import an_event


@pytest.fixture
async def log(database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]) -> AsyncIterator[Log]:
    async with empty_log(database_url, connect_as, password_files) as log:
        yield log


# --- writing ----------------------------------------------------------------------------------------------------


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
        "SELECT event_log.read_from_kafka(true)",
        "SELECT * FROM event_log.inbox",
        "UPDATE event_log.consumer SET position = 0",
    ],
)
async def test_a_service_that_only_writes_may_do_nothing_else(connect_as: ConnectAs, statement: str) -> None:
    account = await connect_as("account")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await account.execute(statement)


# --- order ------------------------------------------------------------------------------------------------------


async def test_a_long_transaction_elsewhere_does_not_hold_the_log_back(log: Log) -> None:
    elsewhere = await asyncpg.connect(log.url)
    await elsewhere.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await elsewhere.execute("INSERT INTO audit.effect (event_id, subject, version) VALUES ($1, 'x', 0)", new_id())

    await log.append(an_event(subject="meanwhile"))
    await log.drain(log.consumer())

    assert await log.effects() == [("meanwhile", 1)]
    await elsewhere.close()


async def test_positions_are_given_without_gaps(log: Log, connect_as: ConnectAs) -> None:
    databases = {name: await connect_as(name) for name in ("audit", "risk")}
    for _ in range(5):
        await log.append(an_event())

    await asyncio.gather(
        *(log.drain(log.consumer(name=name, database=database)) for name, database in databases.items())
    )

    rows = await log.owner.fetch("SELECT position FROM event_log.batch ORDER BY id")
    assert [row["position"] for row in rows] == [1, 2, 3, 4, 5]


# --- reading ----------------------------------------------------------------------------------------------------


async def test_a_consumer_hears_only_its_own_topics(log: Log) -> None:
    await log.append(an_event(subject="p", type="payment.completed"), an_event(subject="s", type="security.signed_in"))
    await log.append(an_event(subject="p", type="payment.expired"))

    await log.drain(log.consumer(topics=["security"]))

    assert await log.effects() == [("s", 1)]
    assert await log.position() == 2


def test_a_topic_that_does_not_exist_is_a_mistake_found_at_the_start() -> None:
    with pytest.raises(KeyError):
        types_of(["paymints"])


async def test_each_consumer_has_a_position_of_its_own(log: Log, connect_as: ConnectAs) -> None:
    await log.append(an_event(subject="first"))
    await log.drain(log.consumer(name="audit"))
    await log.append(an_event(subject="second"))

    await log.drain(log.consumer(name="risk", database=await connect_as("risk")))

    assert await log.effects() == [("first", 1), ("first", 1), ("second", 1)]
    assert (await log.position("audit"), await log.position("risk")) == (1, 2)


async def test_more_batches_than_one_read_takes_are_all_read(log: Log) -> None:
    async with log.writer.transaction() as connection:
        for version in range(1, 1101):
            await log.outbox.append(connection, [an_event(subject="payment", version=version)])

    await log.drain(log.consumer())

    assert await log.effects() == [("payment", version) for version in range(1, 1101)]


# --- forgetting -------------------------------------------------------------------------------------------------


async def test_only_what_all_consumers_have_read_and_what_is_old_is_dropped(log: Log, connect_as: ConnectAs) -> None:
    risk = await connect_as("risk")
    for subject in ("old, read by both", "old, read by one", "young"):
        await log.append(an_event(subject=subject))
        if subject == "old, read by both":
            await log.drain(log.consumer(name="risk", database=risk))
    await log.drain(log.consumer(name="audit"))
    await log.owner.execute("UPDATE event_log.batch SET created_at = now() - interval '91 days' WHERE position <= 2")

    first = await drop_old_batches(database=log.reader, retention=timedelta(days=90))
    await log.drain(log.consumer(name="risk", database=risk))
    second = await drop_old_batches(database=log.reader, retention=timedelta(days=90))

    assert (first, second) == (1, 1)
    rows = await log.owner.fetch("SELECT position FROM event_log.batch ORDER BY position")
    assert [row["position"] for row in rows] == [3]


async def test_nothing_is_dropped_before_anybody_has_read(log: Log) -> None:
    await log.append(an_event())
    await log.owner.execute("UPDATE event_log.batch SET created_at = now() - interval '1 year'")

    assert await drop_old_batches(database=log.reader, retention=timedelta(days=1)) == 0
