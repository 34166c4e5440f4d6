"""Hears every event of the system and records each one in the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from payflow.contracts.topics import TOPICS
from payflow.kernel.clock import Clock
from payflow.kernel.envelope import Event
from payflow.platform.postgres import Connection
from payflow.services.audit.store import PostgresChain
from payflow.services.audit.usecases import record_events

EVERY_TOPIC: Final = [topic.name for topic in TOPICS]


class Recorder:
    """An event handler (see platform.eventlog.EventHandler)."""

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await record_events(events=events, chain=PostgresChain(connection), now=self._clock.now())
