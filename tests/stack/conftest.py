"""A real Kafka for the tests that need one (`make test-stack`). Without Java and Maven they fail."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from payflow_dev.kafka.cluster import Cluster, make_nodes
from tests.builders_event_log import ConnectAs
from tests.builders_kafka import KafkaLog, kafka_log
from tests.support.system import free_port_base


@pytest.fixture(scope="session")
def broker_dir() -> Iterator[Path]:
    """A directory for brokers."""
    path = Path(tempfile.mkdtemp(prefix="pf-kafka-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def broker(broker_dir: Path) -> Iterator[Cluster]:
    """A real Kafka of one node."""
    base = free_port_base()
    with Cluster(make_nodes(folder=broker_dir / "one", ports=[(base + 1, base + 2)])) as cluster:
        yield cluster


@pytest.fixture
async def log(
    broker: Cluster, database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]
) -> AsyncIterator[KafkaLog]:
    """An empty event log on Kafka, with a relay at work."""
    async with kafka_log(broker.nodes, database_url, connect_as, password_files) as log:
        yield log
