"""How the processes of a consumer share the partitions of its topics: one too many stands by, and says so."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Final, NamedTuple

import structlog
from confluent_kafka import ConsumerGroupState, KafkaException
from confluent_kafka.admin import AdminClient

from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.kafka.config import Kafka
from payflow.platform.eventlog.kafka.reading import GroupReader, Place, reason_of

log = structlog.get_logger(__name__)

# For the others of the same start to have joined, and for partitions to have changed hands.
FIRST_LOOK_S: Final = 5.0
_AGAIN_S: Final = 60.0
_TIMEOUT_S: Final = 2.0


class Scarce(NamedTuple):
    """A topic (by the catalogue's name) that has fewer partitions than a consumer has processes."""

    topic: str
    partitions: int
    processes: int


def scarce(members: Mapping[str, Collection[Place]], *, topics: Sequence[str], member: str) -> list[Scarce]:
    """The topics of which this member of a group has nothing because there are too few partitions for all.

    `members`: what each has. Of those that stand by for a topic only the first one is told it, so that one says it.
    """
    found = []
    for topic in topics:
        partitions = {place for places in members.values() for place in places if place[0] == topic}
        idle = [name for name, places in members.items() if partitions.isdisjoint(places)]
        if 0 < len(partitions) < len(members) and member == min(idle):
            found.append(Scarce(topic, len(partitions), len(members)))
    return found


def members_of(kafka: Kafka, *, group: str) -> dict[str, frozenset[Place]] | None:
    """What each member of a group has; None while partitions change hands. Blocks. Raises Unavailable."""
    admin = AdminClient(kafka.client("payflow-sharing"))
    try:
        told = admin.describe_consumer_groups([group], request_timeout=_TIMEOUT_S)[group].result(timeout=_TIMEOUT_S)
    except (KafkaException, TimeoutError) as error:
        why = reason_of(error) if isinstance(error, KafkaException) else "no answer"
        raise Unavailable(f"Kafka does not tell who is in {group}: {why}") from error
    if told.state != ConsumerGroupState.STABLE:
        return None
    return {
        member.member_id: frozenset(
            (kafka.name_of(entry.topic), entry.partition) for entry in member.assignment.topic_partitions
        )
        for member in told.members
    }


class SharingWatch:
    """Looks now and then whether a member stands by, and says it once for each number of processes and partitions."""

    def __init__(self, kafka: Kafka, *, consumer: str, topics: Sequence[str], reader: GroupReader) -> None:
        self._kafka = kafka
        self._consumer = consumer
        self._topics = topics
        self._reader = reader
        self._looks_at = time.monotonic() + FIRST_LOOK_S
        self._told: list[Scarce] = []

    def look(self) -> None:
        """Look, where it is time; a member that has something of every topic asks nobody. Blocks."""
        now = time.monotonic()
        if now < self._looks_at:
            return
        self._looks_at = now + _AGAIN_S
        if self._reader.topics_had.issuperset(self._topics):
            return
        try:
            members = members_of(self._kafka, group=self._kafka.group(self._consumer))
        except Unavailable as error:
            log.debug("consumer.sharing_unknown", consumer=self._consumer, error=repr(error))
            return
        if members is None:
            self._looks_at = now + FIRST_LOOK_S
            return
        found = scarce(members, topics=self._topics, member=self._reader.member_id)
        for one in found:
            if one not in self._told:
                self._tell(one)
        self._told = found

    def _tell(self, one: Scarce) -> None:
        topic = self._kafka.topic(one.topic)
        brokers = self._kafka.connection["bootstrap.servers"]
        log.warning(
            "consumer.stands_by",
            consumer=self._consumer,
            topic=topic,
            partitions=one.partitions,
            processes=one.processes,
            add_by=f"kafka-topics.sh --bootstrap-server {brokers} --alter --topic {topic} --partitions {one.processes}",
        )
