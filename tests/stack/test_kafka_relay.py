"""The outbox relay: what it writes into Kafka, who does it, and what becomes of it when something is lost."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from prometheus_client import REGISTRY

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.dead_letters import RELAY, list_dead_letters, request_retry
from payflow_dev.kafka.cluster import Cluster
from tests.builders_event_log import ConnectAs, a_subjects_events, running, until
from tests.builders_kafka import KafkaLog, kafka_log, said
from tests.event_log_suite import until_letters, until_retried
from tests.fakes_audit import an_event


@pytest.fixture
async def quiet(
    broker: Cluster, database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]
) -> AsyncIterator[KafkaLog]:
    """An event log on Kafka without a relay: the test runs its own."""
    async with kafka_log(broker.nodes, database_url, connect_as, password_files, is_relaying=False) as log:
        yield log


# --- what it writes ---------------------------------------------------------------------------------------------


async def test_a_record_is_a_cloud_event_keyed_by_its_payment(log: KafkaLog) -> None:
    event = an_event(subject="r-1", type="return.completed", data={"return_id": "r-1", "payment_id": "p-1"})
    await log.append(event)
    await log.until_published()

    (record,) = await log.records("returns")

    assert said([record]) == [
        {
            "specversion": "1.0",
            "id": str(event.id),
            "source": "confirm",
            "type": "return.completed",
            "subject": "r-1",
            "time": "2026-03-02T12:00:00Z",
            "datacontenttype": "application/json",
            "dataschema": "urn:payflow:event:ReturnChanged:1",
            "version": 1,
            "traceparent": event.traceparent,
            "data": {"return_id": "r-1", "payment_id": "p-1"},
        }
    ]
    assert dict(record.headers)["content-type"] == b"application/cloudevents+json; charset=UTF-8"
    assert dict(record.headers)["traceparent"] == event.traceparent.encode()


async def test_events_of_one_payment_are_in_one_partition_in_their_order(log: KafkaLog) -> None:
    await log.stream(payments=8, versions=10, pause_s=0)
    await log.until_published()

    records = await log.records()

    places: dict[str, set[int]] = {}
    versions: dict[str, list[int]] = {}
    for record, event in zip(records, said(records), strict=True):
        places.setdefault(event["subject"], set()).add(record.partition)
        versions.setdefault(event["subject"], []).append(event["version"])
    assert versions == {f"payment-{n}": list(range(1, 11)) for n in range(8)}
    assert all(len(partitions) == 1 for partitions in places.values())
    assert len(set.union(*places.values())) > 1


async def test_topics_are_made_as_the_catalogue_says(log: KafkaLog) -> None:
    await log.append(an_event())
    await log.until_published()

    admin = AdminClient(log.kafka.client("test-admin"))
    topic = log.kafka.topic("payments")
    found = admin.list_topics(topic, timeout=10).topics[topic]
    resource = ConfigResource(ResourceType.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(timeout=10)

    assert len(found.partitions) == log.kafka.partitions
    assert config["retention.ms"].value == str(90 * 24 * 3600 * 1000)
    assert config["cleanup.policy"].value == "delete"


async def test_an_event_that_kafka_refuses_is_set_aside_and_the_rest_goes_on(log: KafkaLog) -> None:
    large = an_event(subject="large", version=1, data={"text": os.urandom(700_000).hex()})
    await log.append(*a_subjects_events("before", range(1, 3)), large, an_event(subject="large", version=2))
    await log.until_published()

    (letter,) = await list_dead_letters(log.owner)
    await request_retry(log.owner, consumer=RELAY, event_id=large.id)
    await until_retried(log, left=1)

    assert (letter.consumer, letter.event_id) == (RELAY, large.id)
    assert letter.cause.startswith("refused by Kafka: ")
    assert sorted((event["subject"], event["version"]) for event in said(await log.records())) == [
        ("before", 1),
        ("before", 2),
        ("large", 2),
    ]


async def test_what_the_relay_set_aside_is_published_when_it_is_retried(quiet: KafkaLog) -> None:
    event = an_event(subject="after all")
    await quiet.append(event)
    await quiet.owner.execute(
        "INSERT INTO event_log.dead_letter (consumer, event_id, position, source, events, cause) "
        "SELECT 'relay', $1, 1, source, events, 'too large' FROM event_log.batch",
        event.id,
    )
    await quiet.owner.execute("DELETE FROM event_log.batch")

    async with running(quiet.relay(), quiet.any_consumer()):
        await request_retry(quiet.owner, consumer=RELAY, event_id=None)
        await quiet.until_version("after all", 1)

    assert await list_dead_letters(quiet.owner) == []


# --- who does it ------------------------------------------------------------------------------------------------


def _doubled(events: list[dict[str, object]]) -> list[object]:
    return [id for id, count in Counter(event["id"] for event in events).items() if count > 1]


async def test_several_relays_share_the_work_without_doubling_it(quiet: KafkaLog, connect_as: ConnectAs) -> None:
    relays = [quiet.relay(database=await connect_as("audit")) for _ in range(3)]
    async with running(*relays) as tasks:
        await quiet.stream(payments=4, versions=10)
        await quiet.until_published()
        tasks[0].cancel()
        await quiet.stream(payments=4, versions=10)
        await quiet.until_published()
        tasks[1].cancel()
        await quiet.stream(payments=4, versions=10)
        await quiet.until_published()

    events = said(await quiet.records())
    assert len(events) == 120
    assert _doubled(events) == []


async def test_when_the_relay_is_killed_another_goes_on_at_once(quiet: KafkaLog) -> None:
    loop = asyncio.get_running_loop()
    async with quiet.process("relay") as first:
        await quiet.append(an_event(subject="before"))
        await quiet.until_published()
        async with running(quiet.relay(), quiet.any_consumer()):
            writing = asyncio.create_task(quiet.stream(payments=4, versions=60))
            await asyncio.sleep(0.5)
            first.kill()
            killed_at = loop.time()
            position = await quiet.owner.fetchval("SELECT position FROM event_log.relay")

            async def goes_on() -> bool:
                return int(await quiet.owner.fetchval("SELECT position FROM event_log.relay")) > position + 5

            await until(goes_on, seconds=quiet.patience_s)
            took_s = loop.time() - killed_at
            await writing
            await quiet.until_all(payments=4, versions=60)

    await quiet.assert_once_and_in_order(payments=4, versions=60)
    assert took_s < 5


async def test_a_relay_that_is_stopped_loses_its_turn_and_does_no_harm_when_it_goes_on(quiet: KafkaLog) -> None:
    loop = asyncio.get_running_loop()
    async with quiet.process("relay") as first:
        await quiet.append(an_event(subject="before"))
        await quiet.until_published()
        async with running(quiet.relay(), quiet.any_consumer()):
            writing = asyncio.create_task(quiet.stream(payments=4, versions=40))
            await asyncio.sleep(0.3)
            first.send_signal(signal.SIGSTOP)
            stopped_at = loop.time()
            await writing
            await quiet.until_published()
            took_s = loop.time() - stopped_at
            first.send_signal(signal.SIGCONT)
            await quiet.append(*(an_event(subject=f"payment-{n}", version=41) for n in range(4)))
            await quiet.until_all(payments=4, versions=41)
            await asyncio.sleep(1)

    await quiet.assert_once_and_in_order(payments=4, versions=41)
    assert took_s < 20


async def test_a_relay_whose_connection_is_cut_goes_on(log: KafkaLog) -> None:
    async with running(log.any_consumer()):
        writing = asyncio.create_task(log.stream(payments=4, versions=40))
        for _ in range(3):
            await asyncio.sleep(0.3)
            await log.owner.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'payflow-relay' AND datname = current_database()"
            )
        await writing
        await log.until_all(payments=4, versions=40)

    await log.assert_once_and_in_order(payments=4, versions=40)


async def test_events_that_are_published_twice_have_their_effect_once(quiet: KafkaLog) -> None:
    async with running(quiet.any_consumer()):
        async with running(quiet.relay()):
            await quiet.stream(payments=3, versions=10)
            await quiet.until_published()
        await quiet.owner.execute("UPDATE event_log.relay SET position = 3")
        async with running(quiet.relay()):
            await quiet.until_published()
            await quiet.append(*(an_event(subject=f"payment-{n}", version=11) for n in range(3)))
            await quiet.until_all(payments=3, versions=11)

    assert len(_doubled(said(await quiet.records()))) == 21
    await quiet.assert_once_and_in_order(payments=3, versions=11)


async def test_an_event_that_comes_while_somebody_else_is_numbering_is_published_right_after(quiet: KafkaLog) -> None:
    async with running(quiet.relay()):
        await quiet.append(an_event(subject="first"))
        await quiet.until_published()
        async with quiet.owner.transaction():
            await quiet.owner.execute("SELECT FROM event_log.log_end FOR UPDATE")
            await quiet.append(an_event(subject="second"))
            await asyncio.sleep(0.3)
        ended_at = asyncio.get_running_loop().time()
        await quiet.until_published()
        took_s = asyncio.get_running_loop().time() - ended_at

    # Nobody wakes it a second time: it would look by itself only a second after the event had come.
    assert took_s < 0.6


# --- figures ----------------------------------------------------------------------------------------------------


async def test_what_is_not_published_shows_in_the_figures(quiet: KafkaLog) -> None:
    await quiet.append(an_event(), an_event())
    await quiet.append(an_event())
    await quiet.owner.execute("UPDATE event_log.batch SET created_at = now() - interval '90 seconds'")
    await quiet.owner.execute("SELECT event_log.number_batches(10)")
    holder = await quiet.owner.fetchval("SELECT pg_try_advisory_lock($1)", 0x5041_5952_454C_4159)

    def figures() -> tuple[float, float]:
        unsent = REGISTRY.get_sample_value("payflow_outbox_unsent_batches")
        age_s = REGISTRY.get_sample_value("payflow_outbox_oldest_unsent_seconds")
        return unsent or 0.0, age_s or 0.0

    async def are_shown() -> bool:
        return figures()[0] == 2

    async with running(quiet.relay()):
        await until(are_shown)
        waiting = figures()
        await quiet.owner.fetchval("SELECT pg_advisory_unlock($1)", 0x5041_5952_454C_4159)
        await quiet.until_published()

        async def are_gone() -> bool:
            return figures() == (0, 0)

        await until(are_gone)

    assert holder
    assert 85 < waiting[1] < 150


# --- from one log to the other ----------------------------------------------------------------------------------


async def test_going_over_to_kafka_and_back_loses_and_doubles_nothing(quiet: KafkaLog) -> None:
    async def append(version: int) -> None:
        await quiet.append(*(an_event(subject=f"payment-{n}", version=version) for n in range(4)))

    await append(1)
    await quiet.drain(quiet.consumer())  # PostgreSQL
    await append(2)  # Not read from PostgreSQL any more.
    async with running(quiet.relay(), quiet.any_consumer()):
        await append(3)
        await quiet.until_all(payments=4, versions=3)
    await append(4)  # Never published.
    await quiet.drain(quiet.consumer())
    await append(5)
    await quiet.drain(quiet.consumer())
    async with running(quiet.relay(), quiet.any_consumer()):
        await append(6)
        await quiet.until_all(payments=4, versions=6)

    await quiet.assert_once_and_in_order(payments=4, versions=6)


async def test_what_a_relay_had_sent_but_not_noted_when_it_died_has_no_second_effect(quiet: KafkaLog) -> None:
    await quiet.append(an_event(subject="payment-0", version=1))
    await quiet.drain(quiet.consumer())
    noted = await quiet.owner.fetchval("SELECT position FROM event_log.relay")
    async with running(quiet.relay(), quiet.any_consumer()):
        await quiet.append(an_event(subject="payment-0", version=2))
        await quiet.until_all(payments=1, versions=2)
    await quiet.owner.execute("UPDATE event_log.relay SET position = $1", noted)

    await quiet.append(an_event(subject="payment-0", version=3))
    await quiet.drain(quiet.consumer())

    await quiet.assert_once_and_in_order(payments=1, versions=3)


async def test_only_what_is_in_kafka_and_old_is_dropped_from_the_outbox(quiet: KafkaLog) -> None:
    from datetime import timedelta

    from payflow.platform.eventlog.consumer import drop_old_batches

    async with running(quiet.relay()):
        await quiet.append(an_event(subject="published"))
        await quiet.until_published()
    await quiet.append(an_event(subject="not published"))
    await quiet.owner.execute("SELECT event_log.number_batches(10)")
    await quiet.owner.execute("UPDATE event_log.batch SET created_at = now() - interval '1 year'")

    dropped = await drop_old_batches(database=quiet.reader, retention=timedelta(days=90))

    assert dropped == 1
    assert await quiet.owner.fetchval("SELECT count(*) FROM event_log.batch") == 1


async def test_a_forged_event_is_never_published(log: KafkaLog, connect_as: ConnectAs) -> None:
    forged = an_event(type="payment.rejected", source="confirm")
    await log.append_as(await connect_as("kyc"), forged)
    await log.until_published()
    (letter,) = await until_letters(log, 1)

    assert letter.consumer == RELAY
    assert isinstance(letter.events[0], Event)
    assert not await log.owner.fetchval("SELECT count(*) FROM audit.effect")
