"""Watching events go by, for an operator: from the log in PostgreSQL, or from Kafka where they go on to it."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from payflow.contracts.topics import TOPIC_BY_NAME, TOPIC_BY_TYPE, TOPICS
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.kafka.config import Kafka, kafka_of
from payflow.platform.eventlog.origin import read_events
from payflow.platform.settings import CommonSettings, SettingsError, read_settings
from payflow.run.errors import StartError

if TYPE_CHECKING:
    import asyncpg

LOOK_S: Final = 0.3
_BATCHES_AT_ONCE: Final = 200


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """Which events: of a topic, of a type (None is any), and of any of these keys, subjects and transaction_ids.

    Without `keys`, of all.
    """

    topic: str | None = None
    type: str | None = None
    keys: frozenset[str] = frozenset()

    def of_any(self, keys: Iterable[str]) -> Wanted:
        """The same, of these keys alone."""
        return msgspec.structs.replace(self, keys=frozenset(keys))

    def takes(self, event: Event) -> bool:
        """Whether an event is wanted."""
        topic = TOPIC_BY_TYPE.get(event.type)
        is_of_topic = self.topic is None or (topic is not None and topic.name == self.topic)
        return is_of_topic and self.type in (None, event.type) and self._names(event)

    def _names(self, event: Event) -> bool:
        if not self.keys:
            return True
        topic = TOPIC_BY_TYPE.get(event.type)
        key = event.subject if topic is None else topic.key_of(subject=event.subject, data=event.data)
        return not self.keys.isdisjoint((event.subject, key, str(event.data.get("transaction_id", key))))

    @property
    def topics(self) -> list[str]:
        """The topics in which such events can be."""
        if self.type is not None:
            return [TOPIC_BY_TYPE[self.type].name]
        return [topic.name for topic in TOPICS] if self.topic is None else [self.topic]

    def check(self) -> None:
        """Raises StartError for a topic or type that does not exist."""
        if self.topic is not None and self.topic not in TOPIC_BY_NAME:
            raise StartError(f"There is no topic {self.topic}: choose one of {', '.join(TOPIC_BY_NAME)}.")
        if self.type is not None and self.type not in TOPIC_BY_TYPE:
            raise StartError(f"There is no event type {self.type}: docs/events lists them.")


def kafka_from(settings: Mapping[str, str] | None) -> Kafka | None:
    """The cluster that settings name, None without. Raises StartError for settings that are wrong."""
    if settings is None:
        return None
    try:
        return kafka_of(read_settings(CommonSettings, settings))
    except SettingsError as error:
        raise StartError(str(error)) from error


async def tail_postgres(
    connection: asyncpg.Connection[Any], wanted: Wanted, *, last: int, follow: bool
) -> AsyncIterator[Event]:
    """The last so many events, then, if asked for, those that come; without end."""
    end = int(await connection.fetchval("SELECT position FROM event_log.log_end"))
    for event in await _last_of(connection, wanted, end=end, count=last):
        yield event
    while follow:
        rows = await connection.fetch(
            "SELECT position, events FROM event_log.batch WHERE position > $1 ORDER BY position LIMIT $2",
            end,
            _BATCHES_AT_ONCE,
        )
        for row in rows:
            for event in _events_of(row["events"], wanted):
                yield event
        end = int(rows[-1]["position"]) if rows else end
        if not rows:
            await asyncio.sleep(LOOK_S)


async def _last_of(connection: asyncpg.Connection[Any], wanted: Wanted, *, end: int, count: int) -> list[Event]:
    found: deque[Event] = deque()
    before = end + 1
    while len(found) < count:
        rows = await connection.fetch(
            "SELECT position, events FROM event_log.batch WHERE position < $1 ORDER BY position DESC LIMIT $2",
            before,
            _BATCHES_AT_ONCE,
        )
        for row in rows:
            found.extendleft(reversed(_events_of(row["events"], wanted)))
        if len(rows) < _BATCHES_AT_ONCE:
            break
        before = int(rows[-1]["position"])
    return list(found)[-count:] if count else []


def _events_of(encoded: bytes, wanted: Wanted) -> list[Event]:
    try:
        return [event for event in read_events(encoded) if wanted.takes(event)]
    except ValueError:
        return []  # `payflow events dlq` tells of it.


async def tail_kafka(kafka: Kafka, wanted: Wanted, *, last: int, follow: bool) -> AsyncIterator[Event]:
    """As tail_postgres. Across partitions the last ones are sorted by their time."""
    from payflow.platform.eventlog.kafka.reading import LogReader
    from payflow.platform.eventlog.kafka.worker import Worker

    worker = Worker("kafka-tail")
    # Any name: it joins no group and commits nothing.
    group = kafka.group(f"tail-{os.getpid()}")
    reader = await worker.do(lambda: LogReader(kafka, group=group, client_id="payflow-tail"))
    tail = _KafkaTail(reader, wanted)
    try:
        try:
            past = await worker.do(lambda: tail.last(last))
        except Unavailable as error:
            raise StartError(f"{error.detail.rstrip('.')}; if it is just starting, try again in a moment.") from error
        for event in past[-last:] if last else []:
            yield event
        while follow:
            for event in await worker.do(tail.more):
                yield event
    finally:
        await worker.do(reader.close)
        worker.stop()


class _KafkaTail:
    """The blocking side of tail_kafka."""

    def __init__(self, reader: Any, wanted: Wanted) -> None:
        self._reader = reader
        self._wanted = wanted

    def last(self, count: int) -> list[Event]:
        """The newest events; the reader then stands at the end. At least `count` of each partition are looked at."""
        bounds = {
            (topic, partition): ends
            for topic in self._wanted.topics
            for partition, ends in self._reader.bounds(topic).items()
        }
        begin = {place: max(first, end - max(count, 0) * _LOOK_BACK) for place, (first, end) in bounds.items()}
        left = {place for place, (_, end) in bounds.items() if begin[place] < end}
        if not begin:
            raise StartError("Kafka has no such topic yet: no event was published there.")
        self._reader.begin(begin)
        found: list[Event] = []
        while left:
            records, ended = self._reader.read(1.0)
            found += self._events(records)
            left -= ended
            left -= {record.place for record in records if record.offset + 1 >= bounds[record.place][1]}
        return sorted(found, key=lambda event: (event.time, event.version))

    def more(self) -> list[Event]:
        """What has come since, waiting a moment."""
        return self._events(self._reader.read(LOOK_S)[0])

    def _events(self, records: list[Any]) -> list[Event]:
        from payflow.platform.eventlog.kafka.wire import from_record

        events = []
        for record in records:
            try:
                event = from_record(record.value, record.headers, topic=record.topic).event
            except ValueError:
                continue
            if self._wanted.takes(event):
                events.append(event)
        return events


# With a filter, more than the wanted number has to be looked at; no more than this many times.
_LOOK_BACK: Final = 20
