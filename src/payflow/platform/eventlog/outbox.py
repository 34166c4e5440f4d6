"""The writing side: events are inserted in the same transaction as the change they tell of, a batch a row."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import msgspec
import structlog

from payflow.contracts.topics import TOPIC_BY_TYPE
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.postgres import Connection, Database
from payflow.platform.tracing.events import writing

log = structlog.get_logger(__name__)

CHANNEL: Final = "payflow_events"
# A first event is told of at once, the ones right behind it together: consumers that are awake look by themselves.
NOTIFY_DELAY_S: Final = 0.003
NOTIFY_EVERY_S: Final = 0.025
_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")


def event_of(
    *,
    id: UUID,
    source: str,
    type: str,
    subject: str,
    version: int,
    time: datetime,
    data: msgspec.Struct,
    traceparent: str,
) -> Event:
    """An event whose `data` is one of the Structs of `contracts/topics.py`; raises KeyError for an unknown type."""
    if not isinstance(data, TOPIC_BY_TYPE[type].data):
        raise TypeError(f"{type} carries {TOPIC_BY_TYPE[type].data.__name__}, not {data.__class__.__name__}")
    return Event(
        id=id,
        source=source,
        type=type,
        subject=subject,
        version=version,
        time=time,
        data=msgspec.to_builtins(data),
        traceparent=traceparent,
    )


class EncodedEvents(NamedTuple):
    """Events as one row of the log: (types, events, event_count), for statements that insert it themselves."""

    types: list[str]
    events: bytes
    event_count: int


def encode_events(events: Sequence[Event]) -> EncodedEvents:
    """Events as they are stored; at least one."""
    return EncodedEvents(sorted({event.type for event in events}), _encoder.encode(list(events)), len(events))


class Outbox:
    """Appends events in a caller's transaction and wakes the consumers after it has committed."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._wake_up: asyncio.Task[None] | None = None
        self._notified_at = -1.0

    async def append(self, connection: Connection, events: Sequence[Event]) -> None:
        """Store events in the transaction of `connection`, as one row; nothing for an empty list."""
        if not events:
            return
        with writing(events):
            await connection.execute(
                "INSERT INTO event_log.batch (types, events, event_count) VALUES ($1, $2, $3)", *encode_events(events)
            )

    def wake_consumers(self) -> None:
        """Tell the consumers, soon, that there is something to read; call it after the commit.

        A NOTIFY inside the transaction would put every commit behind one server-wide lock; here calls of the same
        moment share one. It is a hint: consumers also look by themselves.
        """
        if self._wake_up is None or self._wake_up.done():
            self._wake_up = asyncio.get_running_loop().create_task(self._notify())

    async def _notify(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(NOTIFY_DELAY_S, self._notified_at + NOTIFY_EVERY_S - loop.time()))
        self._notified_at = loop.time()
        try:
            await self._database.execute(f"NOTIFY {CHANNEL}")
        except PayflowError as error:
            log.debug("outbox.notify_failed", error=repr(error))
