"""A relay or a consumer in a process of its own: `python -m tests.support.event_process relay|consumer ROLE_URL`.

The settings of Kafka are in the environment. The consumer leaves a row in audit.effect for each event, and takes its
time; both print READY when they have begun.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from collections.abc import Sequence

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.kafka.config import Kafka, kafka_of
from payflow.platform.eventlog.kafka.consumer import KafkaConsumer
from payflow.platform.eventlog.kafka.relay import OutboxRelay
from payflow.platform.postgres import Connection, Database
from payflow.platform.settings import CommonSettings, read_settings

PAUSE_S = 0.02


async def write_slowly(connection: Connection, events: Sequence[Event]) -> None:
    """A handler."""
    statement = "INSERT INTO audit.effect (event_id, subject, version) VALUES ($1, $2, $3)"
    for event in events:
        await connection.execute(statement, event.id, event.subject, event.version)
    await asyncio.sleep(PAUSE_S)


async def run(kind: str, url: str, kafka: Kafka) -> None:
    """Relay or consume until killed."""
    database = await Database.connect(url=url, pool_size=2, application="test", schema="audit")
    if kind == "relay":
        relay = OutboxRelay(
            kafka=kafka, database=database, listen_url=url, listen_password="", client_id=f"relay-{os.getpid()}"
        )
        work = relay.run()
    else:
        consumer = KafkaConsumer(
            kafka=kafka,
            name="audit",
            topics=["payments"],
            handler=write_slowly,
            database=database,
            client_id=f"consumer-{os.getpid()}",
        )
        work = consumer.run()
    print("READY", flush=True)
    await work


def main() -> None:
    """Read the settings and run."""
    logging.basicConfig(stream=sys.stderr)
    kafka = kafka_of(read_settings(CommonSettings, os.environ))
    assert kafka is not None
    asyncio.run(run(sys.argv[1], sys.argv[2], kafka))


main()
