"""Consumers of Kafka when members come, go and die, when a record is rubbish, and when Kafka is gone for a while."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from prometheus_client import REGISTRY

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.dead_letters import list_dead_letters
from payflow.platform.postgres import Connection
from payflow_dev.kafka.cluster import Cluster, make_nodes
from tests.builders_event_log import ConnectAs, running, until
from tests.builders_kafka import KafkaLog, kafka_log
from tests.event_log_suite import until_letters
from tests.fakes_audit import an_event
from tests.support.system import free_port_base

# --- members come, go and die -----------------------------------------------------------------------------------


async def test_members_that_join_and_leave_change_nothing_of_what_is_had(log: KafkaLog, connect_as: ConnectAs) -> None:
    databases = [await connect_as("audit") for _ in range(3)]
    async with running(log.any_consumer(database=databases[0])):
        writing = asyncio.create_task(log.stream(payments=6, versions=120))
        await asyncio.sleep(1)
        async with running(log.any_consumer(database=databases[1])):
            await asyncio.sleep(2)
            async with running(log.any_consumer(database=databases[2])):
                await asyncio.sleep(2)
        await writing
        await log.until_all(payments=6, versions=120)

    await log.assert_once_and_in_order(payments=6, versions=120)


async def _members_with_partitions(log: KafkaLog) -> int:
    """How many members of audit's group have partitions."""

    def ask() -> int:
        admin = AdminClient(log.kafka.client("test-admin"))
        group = log.kafka.group("audit")
        found = admin.describe_consumer_groups([group], request_timeout=10)[group].result(timeout=15)
        return sum(1 for member in found.members if member.assignment.topic_partitions)

    return await asyncio.to_thread(ask)


async def test_processes_of_one_consumer_share_its_partitions(log: KafkaLog) -> None:
    async with log.process("consumer"), log.process("consumer"):
        writing = asyncio.create_task(log.stream(payments=6, versions=50))

        async def is_shared() -> bool:
            return await _members_with_partitions(log) == 2

        await until(is_shared, seconds=log.patience_s)
        await writing
        await log.until_all(payments=6, versions=50)

    await log.assert_once_and_in_order(payments=6, versions=50)


async def test_when_a_member_is_killed_the_others_take_over_its_partitions(log: KafkaLog) -> None:
    async with log.process("consumer") as first, log.process("consumer"):
        writing = asyncio.create_task(log.stream(payments=6, versions=100))

        async def is_shared() -> bool:
            return await _members_with_partitions(log) == 2

        await until(is_shared, seconds=log.patience_s)
        first.kill()
        await writing
        await log.until_all(payments=6, versions=100)

    await log.assert_once_and_in_order(payments=6, versions=100)


async def test_a_member_that_was_stopped_and_goes_on_does_no_harm(log: KafkaLog) -> None:
    async with log.process("consumer") as first, log.process("consumer"):

        async def is_shared() -> bool:
            return await _members_with_partitions(log) == 2

        writing = asyncio.create_task(log.stream(payments=6, versions=100))
        await until(is_shared, seconds=log.patience_s)
        first.send_signal(signal.SIGSTOP)
        await writing
        # Stopped in the middle of a transaction it would keep its locks: then nobody else can have those effects.
        await asyncio.sleep(8)
        first.send_signal(signal.SIGCONT)
        await log.until_all(payments=6, versions=100)
        await asyncio.sleep(1)

    await log.assert_once_and_in_order(payments=6, versions=100)


async def test_a_consumer_that_waits_long_stays_in_its_group(log: KafkaLog) -> None:
    is_away = True

    async def ask_first(connection: Connection, events: Sequence[Event]) -> None:
        if is_away:
            raise OSError("away")
        await log.write_effects(connection, events)

    async with running(log.any_consumer(ask_first)):
        await log.stream(payments=3, versions=5)
        # Longer than a member may be silent.
        await asyncio.sleep(9)
        members = await _members_with_partitions(log)
        is_away = False
        await log.until_all(payments=3, versions=5)

    assert members == 1
    await log.assert_once_and_in_order(payments=3, versions=5)


async def test_what_a_consumer_has_not_handled_shows_in_the_figures(log: KafkaLog) -> None:
    is_away = True

    async def ask_first(connection: Connection, events: Sequence[Event]) -> None:
        if is_away:
            raise OSError("away")
        await log.write_effects(connection, events)

    def lag() -> float:
        return REGISTRY.get_sample_value("payflow_event_lag_events", {"consumer": "audit"}) or 0.0

    async def shows_all() -> bool:
        return lag() == 15

    async def shows_none() -> bool:
        return lag() == 0

    async with running(log.any_consumer(ask_first)):
        await log.stream(payments=3, versions=5)
        await until(shows_all, seconds=log.patience_s)
        is_away = False
        await log.until_all(payments=3, versions=5)
        await until(shows_none, seconds=log.patience_s)


async def test_on_an_idle_system_an_effect_follows_its_event_in_a_moment(log: KafkaLog) -> None:
    loop, took_s = asyncio.get_running_loop(), []
    async with running(log.any_consumer()):
        await log.append(an_event(subject="payment", version=1))
        await log.until_version("payment", 1)
        for version in range(2, 9):
            # The relay sleeps by now, and is woken: by itself it would look once a second.
            await asyncio.sleep(0.4)
            began_at = loop.time()
            await log.append(an_event(subject="payment", version=version))
            await log.until_version("payment", version)
            took_s.append(loop.time() - began_at)

    assert sorted(took_s)[3] < 0.4, took_s


# --- rubbish ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "cause"),
    [
        (b"no json", "unreadable: "),
        (None, "unreadable: a record without a value"),
        (b'{"specversion": "0.3", "id": 7}', "unreadable: "),
        (b"[" * 100_000, "unreadable: "),
        (
            b'{"specversion":"1.0","id":"0198c0de-7a11-7c3e-8f00-3d6d1c0b5a01","source":"confirm",'
            b'"type":"bulk.accepted","subject":"s","time":"2026-03-02T12:00:00Z","version":1,"data":{}}',
            "unreadable: bulk.accepted on the topic payments",
        ),
        (
            b'{"specversion":"1.0","id":"0198c0de-7a11-7c3e-8f00-3d6d1c0b5a01","source":"kyc",'
            b'"type":"payment.rejected","subject":"s","time":"2026-03-02T12:00:00Z","version":1,"data":{}}',
            "forged: kyc does not own",
        ),
    ],
    ids=["no JSON", "no value", "another format", "deep", "another topic", "another's event"],
)
async def test_a_record_that_is_no_event_of_ours_is_set_aside_and_the_rest_goes_on(
    log: KafkaLog, value: bytes | None, cause: str
) -> None:
    async with running(log.any_consumer()):
        await log.append(an_event(subject="payment", version=1))
        await log.until_version("payment", 1)
        producer = Producer({**log.kafka.client("stranger"), "partitioner": "murmur2_random"})
        producer.produce(log.kafka.topic("payments"), key=b"payment", value=value)
        assert await asyncio.to_thread(producer.flush, 20) == 0
        await log.append(an_event(subject="payment", version=2))
        await log.until_version("payment", 2)
        (letter,) = await until_letters(log, 1)

    assert letter.consumer == "audit"
    assert letter.cause.startswith(cause)
    assert await log.effects_of("payment") == [1, 2]


# --- Kafka gone -------------------------------------------------------------------------------------------------


@pytest.fixture
async def mortal(
    broker_dir: Path, database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]
) -> AsyncIterator[tuple[KafkaLog, Cluster]]:
    """An event log on a Kafka of this test's own, which it may kill."""
    base = free_port_base()
    with Cluster(make_nodes(folder=broker_dir / "mortal", ports=[(base + 3, base + 4)])) as cluster:
        async with kafka_log(cluster.nodes, database_url, connect_as, password_files) as log:
            yield log, cluster


async def test_kafka_gone_for_a_while_is_no_matter_to_services_and_the_backlog_drains_in_order(
    mortal: tuple[KafkaLog, Cluster],
) -> None:
    log, cluster = mortal
    consumer = log.any_consumer()
    async with running(consumer):
        await log.stream(payments=4, versions=10)
        await log.until_all(payments=4, versions=10)
        cluster.kill_node(1)
        quiet_s = 0.0
        for version in range(11, 41):
            began_at = asyncio.get_running_loop().time()
            await log.append(*(an_event(subject=f"payment-{n}", version=version) for n in range(4)))
            quiet_s = max(quiet_s, asyncio.get_running_loop().time() - began_at)
            await asyncio.sleep(0.4)
        had, unsent_s = len(await log.effects()), REGISTRY.get_sample_value("payflow_outbox_oldest_unsent_seconds")

        async def complains() -> bool:
            try:
                return not await consumer.is_reading()
            except Exception:
                return True

        await until(complains, seconds=log.patience_s)
        cluster.start_node(1)
        await log.until_all(payments=4, versions=40)

        async def is_well() -> bool:
            try:
                return await consumer.is_reading()
            except Exception:
                return False

        await until(is_well, seconds=log.patience_s)

    await log.assert_once_and_in_order(payments=4, versions=40)
    assert had == 40
    assert quiet_s < 0.5
    assert unsent_s is not None
    assert await list_dead_letters(log.owner) == []


async def test_services_start_without_kafka_and_go_on_when_it_is_there(
    broker_dir: Path, database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]
) -> None:
    base = free_port_base()
    cluster = Cluster(make_nodes(folder=broker_dir / "late", ports=[(base + 5, base + 6)]))
    async with (
        kafka_log(cluster.nodes, database_url, connect_as, password_files) as log,
        running(log.any_consumer()),
    ):
        await log.append(an_event(subject="early"))
        await asyncio.sleep(2)
        before = await log.effects()
        try:
            await asyncio.to_thread(cluster.start)
            versions = await log.until_version("early", 1)
        finally:
            await asyncio.to_thread(cluster.stop)

    assert before == []
    assert versions == [1]
