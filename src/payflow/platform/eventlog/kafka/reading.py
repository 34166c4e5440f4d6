"""Reading records: as a member of a group that shares the partitions, or a stretch by oneself. Both block."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import msgspec
import structlog
from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.kafka.config import Kafka
from payflow.platform.eventlog.kafka.topics import ensure_topics

log = structlog.get_logger(__name__)

RECORDS_PER_READ: Final = 1000
# Offsets are told to the group so often: whoever goes on from an older one finds in its inbox what was handled. A
# replay ends with them, and waits until all members have told theirs.
COMMIT_EVERY_S: Final = 0.5
_TIMEOUT_S: Final = 10.0
_PROBE_S: Final = 0.5
# A partition by the catalogue's name of its topic.
Place = tuple[str, int]
_SETTINGS: Final[dict[str, Any]] = {
    "auto.offset.reset": "earliest",
    "enable.auto.commit": False,
    "queued.max.messages.kbytes": 8192,
}
_GROUP_SETTINGS: Final[dict[str, Any]] = {
    # Who joins or leaves takes or gives single partitions; the others go on meanwhile.
    "partition.assignment.strategy": "cooperative-sticky",
    # A member that was killed is missed for so long.
    "session.timeout.ms": 6000,
    "heartbeat.interval.ms": 2000,
}


class Record(msgspec.Struct, frozen=True):
    """A record as it was read. The topic's is the catalogue's name.

    Many are passed over unread: what is in a message is fetched from it when it is asked for.
    """

    place: Place
    offset: int
    message: Message

    @property
    def value(self) -> bytes | None:
        return self.message.value()

    @property
    def headers(self) -> Any:
        return self.message.headers()

    @property
    def topic(self) -> str:
        return self.place[0]

    @property
    def partition(self) -> int:
        return self.place[1]


class Polled(NamedTuple):
    """What a poll brought: records, and the partitions that are no longer ours."""

    records: list[Record]
    revoked: frozenset[Place]


def reason_of(error: KafkaException) -> str:
    """Why a call to Kafka failed, in words."""
    first = error.args[0] if error.args else error
    return str(first.str()) if isinstance(first, KafkaError) else str(first)


class GroupReader:
    """A member of a consumer group. Offsets are committed by hand, after the effect."""

    def __init__(self, kafka: Kafka, *, group: str, topics: Sequence[str], client_id: str) -> None:
        self._kafka = kafka
        self._group = group
        self._topics = topics
        self._client_id = client_id
        self._client: Consumer | None = None
        self._assigned: set[Place] = set()
        # Partitions that were given up, or lost, since the last poll; of these, some may have come back.
        self._revoked: set[Place] = set()
        # What is handled, and the group does not know yet.
        self._handled: dict[Place, int] = {}
        # From where the group goes on in partitions of which nothing was read here yet.
        self._starts: dict[Place, int] = {}
        self.is_cut_off = False

    def open(self) -> None:
        """Join the group. Raises Unavailable."""
        ensure_topics(self._kafka, self._topics)
        settings = {**_SETTINGS, **_GROUP_SETTINGS, "group.id": self._group, "on_commit": self._note_committed}
        self._client = Consumer({**self._kafka.client(self._client_id, on_error=self._note_error), **settings})
        topics = [self._kafka.topic(name) for name in self._topics]
        self._client.subscribe(
            topics, on_assign=self._note_assigned, on_revoke=self._note_revoked, on_lost=self._note_lost
        )

    def poll(self, seconds: float, *, gather_s: float = 0.0) -> Polled:
        """Records, at most RECORDS_PER_READ, waiting so long for the first, and then for those that come right behind.

        Raises Unavailable.
        """
        client = self._opened
        first = client.poll(seconds)
        if first is not None and gather_s:
            time.sleep(gather_s)
        messages = [] if first is None else [first, *client.consume(RECORDS_PER_READ - 1, 0)]
        records = [self._record(message) for message in messages if not _is_skipped(message)]
        if records:
            self.is_cut_off = False
        revoked, self._revoked = frozenset(self._revoked), set()
        if gone := revoked - self._assigned:
            # What has come back is read from where the group stands: none of it may be dropped.
            records = [record for record in records if record.place not in gone]
        return Polled(records, revoked)

    def commit(self, offsets: Mapping[Place, int]) -> None:
        """Note from where another member would go on; the group is told by `flush`, or when partitions are given up."""
        self._handled |= offsets

    def flush(self) -> None:
        """Tell the group, soon, what was noted; what it does not take is told again."""
        if not self._handled:
            return
        handled, self._handled = self._handled, {}
        try:
            self._opened.commit(
                offsets=[
                    TopicPartition(self._kafka.topic(topic), partition, offset)
                    for (topic, partition), offset in handled.items()
                ],
                asynchronous=True,
            )
        except KafkaException as error:
            # Whoever goes on from an older offset finds in its inbox what was handled.
            log.debug("kafka.commit_failed", error=reason_of(error))

    def pause(self) -> None:
        """Take no records for a while, and stay in the group: it has to be polled all the same."""
        self._opened.pause(self._opened.assignment())

    def resume(self) -> None:
        """Take records again."""
        self._opened.resume(self._opened.assignment())

    def lag(self, following: Mapping[Place, int], *, is_waiting: bool) -> int | None:
        """How many records of its partitions this member has not handled; None where nobody can tell.

        `following`: the offsets after what was handled, of partitions from which something was read. Where partitions
        end is known from what was fetched, and asked for while nothing is fetched (`is_waiting`).
        """
        client, lag = self._opened, 0
        try:
            assigned = {(self._kafka.name_of(entry.topic), entry.partition): entry for entry in client.assignment()}
            self._learn_starts([place for place in assigned if place not in following and place not in self._starts])
        except KafkaException as error:
            log.debug("kafka.lag_unknown", error=reason_of(error))
            return None
        for place, entry in assigned.items():
            try:
                first, end = client.get_watermark_offsets(entry, timeout=_PROBE_S, cached=not is_waiting)
            except KafkaException as error:
                # One broker that does not answer is waited for once: the others, too, say what they said last.
                log.debug("kafka.end_unknown", error=reason_of(error))
                is_waiting = False
                first, end = client.get_watermark_offsets(entry, cached=True)
            if end >= 0:
                lag += max(0, end - max(first, following.get(place, self._starts.get(place, end))))
        return lag

    def _learn_starts(self, places: Sequence[Place]) -> None:
        if not places:
            return
        asked = [TopicPartition(self._kafka.topic(topic), partition) for topic, partition in places]
        for entry in self._opened.committed(asked, timeout=_PROBE_S):
            # Where the group has not begun, it begins with the first.
            self._starts[self._kafka.name_of(entry.topic), entry.partition] = max(entry.offset, 0)

    def probe(self) -> None:
        """Ask Kafka something. Raises Unavailable."""
        try:
            self._opened.list_topics(self._kafka.topic(self._topics[0]), timeout=_PROBE_S)
        except KafkaException as error:
            raise Unavailable(f"Kafka cannot be reached: {reason_of(error)}") from error
        self.is_cut_off = False

    def close(self) -> None:
        """Leave the group, so that others take over at once."""
        if self._client is not None:
            self.flush()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    @property
    def member_id(self) -> str:
        """What the group calls this member; "" before it has joined."""
        return self._opened.memberid() or ""

    @property
    def topics_had(self) -> frozenset[str]:
        """The topics of which this member has a partition."""
        return frozenset(topic for topic, _ in self._assigned)

    @property
    def _opened(self) -> Consumer:
        if self._client is None:
            raise Unavailable("The reader is closed.")
        return self._client

    def _record(self, message: Message) -> Record:
        return _record_of(message, topic=self._kafka.name_of(message.topic()))

    def _note_error(self, error: KafkaError) -> None:
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.is_cut_off = True

    def _places(self, partitions: list[TopicPartition]) -> set[Place]:
        return {(self._kafka.name_of(entry.topic), entry.partition) for entry in partitions}

    def _note_assigned(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self._assigned |= self._places(partitions)

    def _note_revoked(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        # Before they are given up: whoever gets them goes on from here.
        self.flush()
        self._forget(self._places(partitions))

    def _note_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        # Somebody else has them by now, and may be further.
        self._forget(self._places(partitions))

    def _forget(self, places: set[Place]) -> None:
        self._assigned -= places
        self._revoked |= places
        for place in places:
            self._handled.pop(place, None)
            self._starts.pop(place, None)

    def _note_committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        if error is None:
            return
        log.debug("kafka.commit_failed", error=error.str())
        for entry in partitions:
            place = (self._kafka.name_of(entry.topic), entry.partition)
            if place in self._assigned and entry.offset >= 0:
                self._handled.setdefault(place, entry.offset)


class LogReader:
    """Reads stretches of partitions without being a member of the group whose offsets it may ask for."""

    def __init__(self, kafka: Kafka, *, group: str, client_id: str) -> None:
        self._kafka = kafka
        settings = {**_SETTINGS, "group.id": group, "enable.partition.eof": True}
        self._client = Consumer({**kafka.client(client_id), **settings})

    def partitions(self, topic: str) -> list[int]:
        """The partitions of a topic; none where it does not exist. Raises Unavailable."""
        try:
            found = self._client.list_topics(self._kafka.topic(topic), timeout=_TIMEOUT_S).topics[
                self._kafka.topic(topic)
            ]
        except KafkaException as error:
            raise Unavailable(f"Kafka cannot be reached: {reason_of(error)}") from error
        return sorted(found.partitions)

    def committed(self, topic: str) -> dict[int, int]:
        """How far the group has come in each partition; 0 where it has not begun. Raises Unavailable."""
        places = [TopicPartition(self._kafka.topic(topic), partition) for partition in self.partitions(topic)]
        try:
            return {
                entry.partition: max(entry.offset, 0) for entry in self._client.committed(places, timeout=_TIMEOUT_S)
            }
        except KafkaException as error:
            raise Unavailable(f"Kafka cannot be reached: {reason_of(error)}") from error

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """The first offset and the end of each partition. Raises Unavailable."""
        try:
            return {
                partition: self._client.get_watermark_offsets(
                    TopicPartition(self._kafka.topic(topic), partition), timeout=_TIMEOUT_S
                )
                for partition in self.partitions(topic)
            }
        except KafkaException as error:
            raise Unavailable(f"Kafka cannot be reached: {reason_of(error)}") from error

    def first_since(self, topic: str, instant: datetime) -> dict[int, int | None]:
        """The first offset that was written at this instant or later in each partition; None where there is none."""
        since_ms = int(instant.timestamp() * 1000)
        places = [TopicPartition(self._kafka.topic(topic), partition, since_ms) for partition in self.partitions(topic)]
        try:
            found = self._client.offsets_for_times(places, timeout=_TIMEOUT_S)
        except KafkaException as error:
            raise Unavailable(f"Kafka cannot be reached: {reason_of(error)}") from error
        return {entry.partition: None if entry.offset == OFFSET_END else entry.offset for entry in found}

    def begin(self, offsets: Mapping[Place, int]) -> None:
        """Read from these offsets on."""
        self._client.assign(
            [
                TopicPartition(self._kafka.topic(topic), partition, offset)
                for (topic, partition), offset in offsets.items()
            ]
        )

    def read(self, seconds: float) -> tuple[list[Record], set[Place]]:
        """Records, at most RECORDS_PER_READ, waiting so long for the first; and partitions whose end was seen.

        Raises Unavailable.
        """
        first = self._client.poll(seconds)
        messages = [] if first is None else [first, *self._client.consume(RECORDS_PER_READ - 1, 0)]
        records, ended = [], set()
        for message in messages:
            topic = self._kafka.name_of(message.topic())
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:
                ended.add((topic, message.partition() or 0))
            elif not _is_skipped(message):
                records.append(_record_of(message, topic=topic))
        return records, ended

    def close(self) -> None:
        """End the client."""
        self._client.close()


def _is_skipped(message: Message) -> bool:
    """Whether a message is an error that passes by itself. Raises Unavailable for one that needs a new client."""
    error = message.error()
    if error is None:
        return False
    if error.fatal() or error.code() in _NEEDS_A_NEW_CLIENT:
        raise Unavailable(f"Kafka: {error.str()}")
    log.warning("kafka.read_error", error=error.str())
    return True


_NEEDS_A_NEW_CLIENT: Final = frozenset(
    {
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)


def _record_of(message: Message, *, topic: str) -> Record:
    return Record((topic, message.partition() or 0), message.offset() or 0, message)
