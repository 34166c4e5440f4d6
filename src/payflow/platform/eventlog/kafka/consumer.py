"""The reading side on Kafka: a member of a consumer group, whose inbox is written in the transaction of the effects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import partial
from typing import Final
from uuid import uuid5

import structlog
from confluent_kafka import KafkaException
from prometheus_client import Gauge

from payflow.contracts.topics import TOPIC_BY_TYPE
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.eventlog import inbox
from payflow.platform.eventlog.consumer import COMPLAIN_AFTER, UNREADABLE, stop_if_cancelled
from payflow.platform.eventlog.delivery import (
    BatchFailed,
    Deliverer,
    Delivery,
    EventHandler,
    Retried,
    types_of,
    waits,
)
from payflow.platform.eventlog.kafka.config import Kafka
from payflow.platform.eventlog.kafka.reading import COMMIT_EVERY_S, GroupReader, Place, Record, reason_of
from payflow.platform.eventlog.kafka.replaying import Replayer
from payflow.platform.eventlog.kafka.sharing import SharingWatch
from payflow.platform.eventlog.kafka.wire import from_record, type_in
from payflow.platform.eventlog.kafka.worker import Worker
from payflow.platform.eventlog.rests import Rests
from payflow.platform.postgres import Connection, Database
from payflow.platform.tracing.events import KAFKA

log = structlog.get_logger(__name__)

POLL_S: Final = 0.25
LOOK_S: Final = 1.0
# How long records are gathered under load, once one is there: those of one turn of the relay come right behind it.
GATHER_S: Final = 0.025
CAREFUL_RECORDS: Final = 100
_CLOSE_S: Final = 0.8
_lag: Final = Gauge("payflow_event_lag_events", "Events in Kafka that this process has not handled yet.", ["consumer"])


class KafkaConsumer:
    """Reads the topics as a member of the consumer's group and hands events of its types to a handler.

    The same promise as the consumer on PostgreSQL: every event is handed over at least once, in order per key, and its
    effect is committed once, together with its row in the inbox. Offsets are committed after that. What cannot be
    handled is set aside; what passes is waited out, in the group. Several processes of one consumer share the
    partitions. What is read while `nobody_listens` is passed over, readable or not, which costs next to nothing.
    """

    def __init__(
        self,
        *,
        kafka: Kafka,
        name: str,
        topics: Sequence[str],
        handler: EventHandler,
        database: Database,
        client_id: str,
        after_commit: Callable[[Sequence[Event]], None] | None = None,
        types: Collection[str] | None = None,
        nobody_listens: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self._kafka = kafka
        self._name = name
        self._types = types_of(topics) if types is None else types_of(topics) & frozenset(types)
        self._topics = sorted({TOPIC_BY_TYPE[type_].name for type_ in self._types})
        # What is on these topics and not ours: known by its type, and read no further.
        self._passed_over = types_of(self._topics) - self._types
        self._deliverer = Deliverer(
            name=name, types=self._types, handler=handler, after_commit=after_commit, system=KAFKA
        )
        self._database = database
        self._client_id = client_id
        self._nobody_listens = nobody_listens
        self._worker = Worker(f"kafka-{name}")
        self._reader: GroupReader | None = None
        self._failures = 0
        # Where this process goes on in each partition that it has; what was read and not handled yet.
        self._next: dict[Place, int] = {}
        self._pending: list[Record] = []
        self._looks_at = 0.0
        self._rests = Rests(longest_s=GATHER_S, counts_as=1)

    async def run(self) -> None:
        """Consume until cancelled; whatever is no event's fault is waited out, up to 2 s at a time."""
        try:
            while True:
                try:
                    await self._take_part()
                except (PayflowError, OSError) as error:
                    await self._wait_out(error)
                except KafkaException as error:
                    await self._wait_out(Unavailable(reason_of(error)))
        finally:
            self._worker.stop()

    async def is_reading(self) -> bool:
        """A health check: False while the consumer keeps failing and waits, and while Kafka cannot be reached."""
        reader = self._reader
        if reader is not None and reader.is_cut_off:
            await self._worker.do(reader.probe)
        return self._failures < COMPLAIN_AFTER

    async def _take_part(self) -> None:
        """Be a member of the group until something goes wrong with Kafka."""
        reader = GroupReader(
            self._kafka, group=self._kafka.group(self._name), topics=self._topics, client_id=self._client_id
        )
        replayer = Replayer(self._kafka, name=self._name, deliverer=self._deliverer, client_id=self._client_id)
        sharing = SharingWatch(self._kafka, consumer=self._name, topics=self._topics, reader=reader)
        telling = asyncio.create_task(self._tell_always(reader))
        try:
            await self._worker.do(reader.open)
            self._reader = reader
            while True:
                stop_if_cancelled()
                await self._take(reader, seconds=0 if self._pending else POLL_S)
                if self._pending:
                    await self._handle_pending(reader)
                await self._look_around(replayer, sharing)
        finally:
            telling.cancel()
            self._reader, self._pending, self._next = None, [], {}
            await self._close(reader, replayer)

    async def _tell_always(self, reader: GroupReader) -> None:
        """Tell the group how far this member is, also while a handler takes long."""
        while True:
            await asyncio.sleep(COMMIT_EVERY_S)
            if self._reader is reader:
                await self._worker.do(reader.flush)

    async def _take(self, reader: GroupReader, *, seconds: float) -> None:
        polled = await self._worker.do(partial(reader.poll, seconds, gather_s=self._rests.now()))
        if polled.revoked:
            # Whoever has these partitions now is handed the same records.
            self._pending = [record for record in self._pending if record.place not in polled.revoked]
            for place in polled.revoked:
                self._next.pop(place, None)
        for record in polled.records:
            self._next.setdefault(record.place, record.offset)
        self._pending += polled.records
        if polled.records:
            self._rests.after(len(polled.records))

    async def _handle_pending(self, reader: GroupReader) -> None:
        """Have the effects of what was read; when that has to wait, stay in the group meanwhile."""
        try:
            handled = await self._handle(self._pending)
        except Exception as error:
            await self._worker.do(reader.pause)
            await self._wait_out(error)
            return
        offsets = {record.place: record.offset + 1 for record in self._pending}
        self._next |= offsets
        self._pending = []
        await self._worker.do(partial(reader.commit, offsets))
        if self._failures:
            self._failures = 0
            await self._worker.do(reader.resume)
        self._deliverer.tell(handled)

    async def _handle(self, records: Sequence[Record]) -> list[Event]:
        if self._nobody_listens is not None and await self._nobody_listens():
            return []
        try:
            return await self._handle_once(records, is_careful=False)
        except BatchFailed:
            # A few at a time, so that those before the one at fault do not wait for it, nor many for many.
            handled = []
            for start in range(0, len(records), CAREFUL_RECORDS):
                few = records[start : start + CAREFUL_RECORDS]
                handled += await self._handle_once(few, is_careful=True)
            return handled

    async def _handle_once(self, records: Sequence[Record], *, is_careful: bool) -> list[Event]:
        deliveries, unreadable = self._sort(records)
        if not deliveries and not unreadable:
            return []
        async with self._database.transaction() as connection:
            for record, cause in unreadable:
                await self._set_aside(connection, record, cause)
            fresh = await self._not_had(connection, deliveries)
            genuine = await self._deliverer.sort_out(connection, fresh)
            return await self._deliverer.apply(connection, genuine, is_careful=is_careful) if genuine else []

    def _sort(self, records: Iterable[Record]) -> tuple[list[Delivery], list[tuple[Record, str]]]:
        """The events of records that are ours, and what cannot be read."""
        deliveries, unreadable = [], []
        for record in records:
            if self._passed_over and type_in(record.value) in self._passed_over:
                continue
            try:
                delivery = from_record(record.value, record.headers, topic=record.topic)
            except ValueError as error:
                unreadable.append((record, f"unreadable: {error}"))
                continue
            if delivery.event.type in self._types:
                deliveries.append(delivery)
        return deliveries, unreadable

    async def _not_had(self, connection: Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those that this consumer had neither from Kafka nor, before, from PostgreSQL; they are in the inbox now."""
        position = await connection.fetchval(
            "SELECT coalesce(max(position), 0) FROM event_log.consumer WHERE name = $1", self._name
        )
        later = [delivery for delivery in deliveries if delivery.position == 0 or delivery.position > position]
        new = await inbox.take(connection, consumer=self._name, event_ids=[delivery.event.id for delivery in later])
        fresh = []
        for delivery in later:
            if delivery.event.id in new:
                new.discard(delivery.event.id)
                fresh.append(delivery)
        return fresh

    async def _set_aside(self, connection: Connection, record: Record, cause: str) -> None:
        place = f"{self._kafka.topic(record.topic)}/{record.partition}/{record.offset}"
        await self._deliverer.set_aside(
            connection,
            event_id=uuid5(UNREADABLE, place),
            position=0,
            source="kafka",
            events=record.value or b"",
            cause=f"{cause} (at {place})",
        )

    async def _look_around(self, replayer: Replayer, sharing: SharingWatch) -> None:
        """Tell, once a second, how this member stands; look whether something is to be handed over again, and hand over
        some of it."""
        now = asyncio.get_running_loop().time()
        if now < self._looks_at:
            return
        self._looks_at = now + LOOK_S
        await self._measure()
        await self._worker.do(sharing.look)
        if self._pending:
            return
        try:
            if await self._database.fetchval("SELECT event_log.has_replays_for($1)", self._name):
                self._looks_at = 0.0
                if not await self._retry():
                    self._deliverer.tell(await replayer.step(self._database), is_again=True)
        except PayflowError as error:
            self._looks_at = now + LOOK_S
            log.warning("consumer.replay_waits", consumer=self._name, error=repr(error))

    async def _retry(self) -> bool:
        retried: Retried | None = None
        async with self._database.transaction() as connection:
            retried = await self._deliverer.retry(connection)
        if retried is None:
            return False
        self._deliverer.tell_retried(retried)
        self._deliverer.tell(retried.events, is_again=True)
        return True

    async def _measure(self) -> None:
        reader = self._reader
        if reader is not None:
            lag = await self._worker.do(partial(reader.lag, dict(self._next), is_waiting=bool(self._pending)))
            if lag is not None:
                _lag.labels(self._name).set(lag)

    async def _wait_out(self, error: Exception) -> None:
        self._failures += 1
        waits.labels(self._name).inc()
        tell = log.warning if self._failures < COMPLAIN_AFTER else log.error
        tell("consumer.waiting", consumer=self._name, error=repr(error), tries=self._failures)
        await asyncio.sleep(min(0.05 * 2 ** min(self._failures - 1, 10), 2.0))

    async def _close(self, reader: GroupReader, replayer: Replayer) -> None:
        """Leave the group; with Kafka gone that may take long, and nobody waits for it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._worker.do(reader.close)
                await replayer.close()
