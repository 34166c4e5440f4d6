"""Adapts events to the use case: messages are stored in the consumer's own transaction, so that each is told once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from payflow.kernel.clock import Clock, Ids
from payflow.kernel.envelope import Event
from payflow.platform.postgres import Connection
from payflow.services.notification.ports import Templates
from payflow.services.notification.store import PostgresMessages
from payflow.services.notification.usecases.notices import queue_notices

TOPICS: Final = ("payments", "reviews.decided", "security", "incoming")


class NotificationConsumer:
    """Handles the events of TOPICS (see platform.eventlog.EventHandler)."""

    def __init__(self, *, channels: Sequence[str], templates: Templates, clock: Clock, ids: Ids) -> None:
        self._channels = channels
        self._templates = templates
        self._clock = clock
        self._ids = ids

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await queue_notices(
            events=events,
            messages=PostgresMessages(connection),
            channels=self._channels,
            templates=self._templates,
            ids=self._ids,
            now=self._clock.now(),
        )
