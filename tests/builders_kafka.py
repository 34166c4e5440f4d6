"""An event log on a real Kafka: the relay at work, consumers as groups, topics of one test's own."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from payflow.kernel.envelope import Event
from payflow.platform.eventlog import EventHandler
from payflow.platform.eventlog.kafka.config import Kafka, kafka_of
from payflow.platform.eventlog.kafka.consumer import KafkaConsumer
from payflow.platform.eventlog.kafka.reading import LogReader, Record
from payflow.platform.eventlog.kafka.relay import OutboxRelay
from payflow.platform.postgres import Database
from payflow.platform.settings import CommonSettings, read_settings
from payflow.run.supervisor.environment import kafka_client_settings
from payflow_dev.kafka.node import Node
from tests.builders_event_log import PAYMENTS, ConnectAs, Log, empty_log, running, until
from tests.fakes_audit import an_event
from tests.support.system import ROOT


def kafka_for(nodes: Sequence[Node], *, partitions: int = 3) -> Kafka:
    """The cluster as services use it, with names of topics and groups that nobody else has."""
    brokers = ",".join(node.address for node in nodes)
    environ = kafka_client_settings(brokers=brokers, password_file=nodes[0].folder.parent / "password")
    kafka = kafka_of(read_settings(CommonSettings, environ))
    assert kafka is not None
    return msgspec.structs.replace(kafka, prefix=f"t{secrets.token_hex(4)}.", partitions=partitions)


class KafkaLog(Log):
    """As Log, with consumers that read from Kafka what a relay publishes there."""

    patience_s = 40.0

    def __init__(self, *, log: Log, kafka: Kafka, relay_url: str) -> None:
        super().__init__(owner=log.owner, writer=log.writer, reader=log.reader, url=log.url, owner_url=log.owner_url)
        self.kafka = kafka
        self._relay_url = relay_url

    @property
    def settings(self) -> dict[str, str]:
        connection = self.kafka.connection
        return {
            **super().settings,
            "PAYFLOW_KAFKA_BROKERS": connection["bootstrap.servers"],
            "PAYFLOW_KAFKA_SECURITY_PROTOCOL": connection["security.protocol"],
            "PAYFLOW_KAFKA_SASL_MECHANISM": connection["sasl.mechanism"],
            "PAYFLOW_KAFKA_SASL_USERNAME": connection["sasl.username"],
            "PAYFLOW_KAFKA_SASL_PASSWORD": connection["sasl.password"],
            "PAYFLOW_KAFKA_TOPIC_PREFIX": self.kafka.prefix,
        }

    def relay(self, *, database: Database | None = None) -> OutboxRelay:
        """A relay of this log; run it in the background."""
        return OutboxRelay(
            kafka=self.kafka,
            database=database or self.reader,
            listen_url=self._relay_url,
            listen_password="",
            client_id="test-relay",
        )

    def any_consumer(
        self,
        handler: EventHandler | None = None,
        *,
        name: str = "audit",
        topics: Sequence[str] = PAYMENTS,
        types: Collection[str] | None = None,
        database: Database | None = None,
        after_commit: Callable[[Sequence[Event]], None] | None = None,
        nobody_listens: Callable[[], Awaitable[bool]] | None = None,
    ) -> KafkaConsumer:
        return KafkaConsumer(
            kafka=self.kafka,
            name=name,
            topics=topics,
            types=types,
            handler=handler or self.write_effects,
            database=database or self.reader,
            client_id=f"test-{name}",
            after_commit=after_commit,
            nobody_listens=nobody_listens,
        )

    @asynccontextmanager
    async def process(self, kind: str) -> AsyncIterator[asyncio.subprocess.Process]:
        """A `relay` or `consumer` in a process of its own, begun; killed at the end."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.support.event_process", kind, self.url),
            env={**os.environ, **self.settings, "PAYFLOW_KAFKA_PARTITIONS": str(self.kafka.partitions)},
            cwd=ROOT,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), self.patience_s) == b"READY\n"
            yield process
        finally:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def until_all(self, *, payments: int, versions: int) -> None:
        """Wait until every version of every payment of `stream` had its effect."""

        async def are_had() -> bool:
            of_stream = [subject for subject, _ in await self.effects() if subject.startswith("payment-")]
            return len(of_stream) >= payments * versions

        await until(are_had, seconds=self.patience_s)

    async def assert_once_and_in_order(self, *, payments: int, versions: int) -> None:
        """Every event had its effect, once, in the order of its payment."""
        for n in range(payments):
            assert await self.effects_of(f"payment-{n}") == list(range(1, versions + 1)), n

    async def stream(self, *, payments: int, versions: int, pause_s: float = 0.02) -> float:
        """Append events as services do; the seconds that the slowest append took."""
        slowest, loop = 0.0, asyncio.get_running_loop()
        for version in range(1, versions + 1):
            began_at = loop.time()
            await self.append(*(an_event(subject=f"payment-{n}", version=version) for n in range(payments)))
            slowest = max(slowest, loop.time() - began_at)
            await asyncio.sleep(pause_s)
        return slowest

    async def until_published(self, *, seconds: float | None = None) -> None:
        """Wait until the relay has nothing left to do."""

        async def is_done() -> bool:
            row = await self.owner.fetchrow(
                "SELECT relay.position AS done, log_end.position AS last, "
                "EXISTS (SELECT FROM event_log.batch WHERE position IS NULL) AS has_more "
                "FROM event_log.relay, event_log.log_end"
            )
            assert row is not None
            return row["done"] == row["last"] and not row["has_more"]

        await until(is_done, seconds=seconds or self.patience_s)

    async def records(self, topic: str = "payments") -> list[Record]:
        """All records of a topic, partition by partition."""
        return await asyncio.to_thread(self._read_all, topic)

    def _read_all(self, topic: str) -> list[Record]:
        reader = LogReader(self.kafka, group="test.all", client_id="test-all")
        try:
            bounds = reader.bounds(topic)
            left = {partition for partition, (first, end) in bounds.items() if end > first}
            reader.begin({(topic, partition): bounds[partition][0] for partition in left})
            found: list[Record] = []
            while left:
                records, ended = reader.read(10)
                found += records
                left -= {partition for _, partition in ended}
            return sorted(found, key=lambda record: (record.partition, record.offset))
        finally:
            reader.close()


def said(records: Sequence[Record]) -> list[dict[str, Any]]:
    """What records say."""
    return [msgspec.json.decode(record.value or b"null") for record in records]


@asynccontextmanager
async def kafka_log(
    nodes: Sequence[Node],
    database_url: str,
    connect_as: ConnectAs,
    password_files: dict[str, Path],
    *,
    is_relaying: bool = True,
) -> AsyncIterator[KafkaLog]:
    """An empty log on Kafka with a relay at work, unless the test runs its own."""
    async with empty_log(database_url, connect_as, password_files) as log:
        found = KafkaLog(log=log, kafka=kafka_for(nodes), relay_url=log.url)
        if not is_relaying:
            yield found
            return
        async with running(found.relay()):
            yield found
