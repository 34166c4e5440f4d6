"""Making the topics of the catalogue in Kafka, where they are missing."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from payflow.contracts.topics import TOPIC_BY_NAME
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.kafka.config import Kafka

log = structlog.get_logger(__name__)

_TIMEOUT_S: Final = 10.0
_DAY_MS: Final = 24 * 3600 * 1000


def ensure_topics(kafka: Kafka, names: Collection[str]) -> None:
    """Make those of the catalogue's topics that Kafka does not have; blocks. Raises Unavailable.

    What exists is left as it is: its partitions and retention are its owner's.
    """
    errors: list[KafkaError] = []
    admin = AdminClient(kafka.client("payflow-topics", on_error=errors.append))
    existing = _existing(admin, errors)
    missing = [name for name in names if kafka.topic(name) not in existing]
    if not missing:
        return
    if not kafka.creates_topics:
        raise Unavailable(f"Kafka has no topic {kafka.topic(missing[0])}, and PAYFLOW_KAFKA_CREATE_TOPICS is false.")
    made = admin.create_topics([_new(kafka, name) for name in missing], request_timeout=_TIMEOUT_S)
    for topic, future in made.items():
        try:
            future.result(timeout=_TIMEOUT_S)
            log.info("kafka.topic_made", topic=topic)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise Unavailable(f"The topic {topic} cannot be made: {error.args[0].str()}") from error
        except TimeoutError as error:
            raise Unavailable(f"The topic {topic} was not made within {_TIMEOUT_S:.0f} s.") from error


def _existing(admin: AdminClient, errors: list[KafkaError]) -> dict[str, Any]:
    try:
        return dict(admin.list_topics(timeout=_TIMEOUT_S).topics)
    except KafkaException as error:
        # Why is told on the way: a login that is refused, a certificate, a port on which nobody listens.
        admin.poll(0)
        why = next((told.str() for told in errors), error.args[0].str())
        raise Unavailable(f"Kafka cannot be reached: {why}") from error


def _new(kafka: Kafka, name: str) -> NewTopic:
    return NewTopic(
        kafka.topic(name),
        num_partitions=kafka.partitions,
        replication_factor=kafka.replication,
        config={
            "cleanup.policy": "delete",
            "retention.ms": str(TOPIC_BY_NAME[name].retention_days * _DAY_MS),
            # Not the event's own time: what is published late, after an outage or when it was set aside, is kept as
            # long as anything else.
            "message.timestamp.type": "LogAppendTime",
        },
    )
