"""Publishing records: in order per key, acknowledged by every copy that is in step, repeated until it is done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.kafka.config import Kafka
from payflow.platform.eventlog.kafka.topics import ensure_topics
from payflow.platform.eventlog.kafka.wire import Outgoing
from payflow.platform.eventlog.kafka.worker import Worker

log = structlog.get_logger(__name__)

_POLL_S: Final = 0.1
_CLOSE_S: Final = 0.5
# What a record can itself be at fault for. At anything else it is sent again.
_OWN_FAULT: Final = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_RECORD, KafkaError.INVALID_MSG_SIZE})
_SETTINGS: Final[dict[str, Any]] = {
    "acks": "all",
    "enable.idempotence": True,
    # Never given up locally: a record that was, while the one behind it arrived, would have changed their order.
    "message.timeout.ms": 0,
    # Longer than it takes to hand over what is published at once; then it is flushed, which waits for nothing more.
    "linger.ms": 100,
    "compression.type": "lz4",
    # As Java's clients place keys, so that their producers and ours agree.
    "partitioner": "murmur2_random",
    # What arrived is known by what is not outstanding any more.
    "delivery.report.only.error": True,
}


class _GivenUp(Exception):
    """Nobody waits for the records any more."""


class Publisher:
    """One idempotent producer, made when first needed and made anew after an error that it does not survive."""

    def __init__(self, kafka: Kafka, *, client_id: str) -> None:
        self._kafka = kafka
        self._client_id = client_id
        self._worker = Worker("kafka-publisher")
        self._producer: Producer | None = None
        self._topics: set[str] = set()
        self._is_given_up = threading.Event()

    async def publish(self, records: Sequence[Outgoing]) -> dict[int, str]:
        """Return when every record is in Kafka, however long that takes; those that it refuses, by index, and why.

        In the order given. When this raises Unavailable, or is cancelled, some may be in Kafka: publish all again.
        """
        if not records:
            return {}
        self._is_given_up = given_up = threading.Event()
        try:
            return await self._worker.do(partial(self._publish, records, given_up))
        except asyncio.CancelledError:
            given_up.set()
            raise
        except KafkaException as error:
            raise Unavailable(f"Kafka: {error.args[0].str()}") from error

    async def close(self) -> None:
        """Give up what is under way, and end the producer; waits a moment only."""
        self._is_given_up.set()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self._worker.do(self._drop)
        except TimeoutError:
            log.debug("publisher.close_slow")
        self._worker.stop()

    def _publish(self, records: Sequence[Outgoing], given_up: threading.Event) -> dict[int, str]:
        missing = {record.topic for record in records} - self._topics
        if missing:
            ensure_topics(self._kafka, missing)
            self._topics |= missing
        try:
            return self._send(self._producer or self._make(), records, given_up)
        except BaseException:
            # What is still on its way must not arrive after what is published next time.
            self._drop()
            self._topics.clear()
            raise

    def _make(self) -> Producer:
        self._producer = Producer({**self._kafka.client(self._client_id), **_SETTINGS})
        return self._producer

    def _send(self, producer: Producer, records: Sequence[Outgoing], given_up: threading.Event) -> dict[int, str]:
        refused: dict[int, str] = {}
        errors: list[KafkaError] = []

        def on_failure(index: int, error: KafkaError, _: Any) -> None:
            if error.code() in _OWN_FAULT:
                refused[index] = error.str()
            else:
                errors.append(error)

        def check() -> None:
            if errors:
                raise KafkaException(errors[0])
            if given_up.is_set():
                raise _GivenUp

        for index, record in enumerate(records):
            told = partial(on_failure, index)
            while True:
                try:
                    producer.produce(
                        self._kafka.topic(record.topic),
                        value=record.value,
                        key=record.key,
                        headers=record.headers,
                        on_delivery=told,
                    )
                    break
                except BufferError:
                    producer.poll(_POLL_S)
                    check()
                except KafkaException as error:
                    if error.args[0].code() not in _OWN_FAULT:
                        raise
                    told(error.args[0], None)
                    break
        while producer.flush(_POLL_S):
            check()
        check()
        return refused

    def _drop(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.poll(0)
            producer.close()
