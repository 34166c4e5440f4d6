"""Three brokers, three copies of everything, two of which must be in step: one may die at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from payflow_dev.kafka.cluster import Cluster, make_nodes
from tests.builders_event_log import ConnectAs, running
from tests.builders_kafka import KafkaLog, kafka_log, said
from tests.support.system import free_port_base

PAYMENTS, VERSIONS = 6, 150


@pytest.fixture(scope="module")
def three(broker_dir: Path) -> Iterator[Cluster]:
    """A real Kafka of three nodes."""
    base = free_port_base()
    ports = [(base + 7 + number, base + 11 + number) for number in range(3)]
    with Cluster(make_nodes(folder=broker_dir / "three", ports=ports)) as cluster:
        yield cluster


@pytest.fixture
async def log(
    three: Cluster, database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]
) -> AsyncIterator[KafkaLog]:
    """An empty event log on them."""
    async with kafka_log(three.nodes, database_url, connect_as, password_files) as log:
        log.patience_s = 90
        yield log


@pytest.mark.timeout(300)
async def test_a_broker_that_is_killed_while_events_are_sent_loses_doubles_and_reorders_nothing(
    log: KafkaLog, three: Cluster, connect_as: ConnectAs
) -> None:
    async with running(log.any_consumer(), log.any_consumer(database=await connect_as("audit"))):
        writing = asyncio.create_task(log.stream(payments=PAYMENTS, versions=VERSIONS, pause_s=0.05))
        await asyncio.sleep(2)
        three.kill_node(1)
        await writing
        await log.until_all(payments=PAYMENTS, versions=VERSIONS)
        # It comes back, catches up, and then another one may die.
        three.start_node(1)
        await asyncio.to_thread(three.wait_ready, count=3)
        await asyncio.sleep(8)
        writing = asyncio.create_task(log.stream(payments=PAYMENTS, versions=VERSIONS + 50, pause_s=0.02))
        await asyncio.sleep(1)
        three.kill_node(2)
        await writing
        await log.until_all(payments=PAYMENTS, versions=2 * VERSIONS + 50)

    for n in range(PAYMENTS):
        assert await log.effects_of(f"payment-{n}") == [*range(1, VERSIONS + 1), *range(1, VERSIONS + 51)]
    published = {event["id"] for event in said(await log.records())}
    assert len(published) == PAYMENTS * (2 * VERSIONS + 50)
