"""Adapts events to the use cases: messages and webhooks' deliveries are stored in the transaction of their consumer, so
that each is there once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from payflow.contracts.notification import WEBHOOK_TOPICS
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.envelope import Event
from payflow.platform.postgres import Connection
from payflow.services.notification.ports import Channel, Templates
from payflow.services.notification.store import PostgresMessages, PostgresWebhookStore
from payflow.services.notification.usecases.notices import queue_notices
from payflow.services.notification.usecases.rendering import ways_of
from payflow.services.notification.usecases.webhook_deliveries import queue_events

__all__ = ["TOPICS", "WEBHOOK_CONSUMER", "WEBHOOK_TOPICS", "NotificationConsumer", "WebhookConsumer", "while_heard"]

TOPICS: Final = ("payments", "returns", "bulk", "reviews.decided", "security", "incoming")
WEBHOOK_CONSUMER: Final = "notification.webhooks"


class NotificationConsumer:
    """Handles the events of TOPICS (see platform.eventlog.EventHandler)."""

    def __init__(self, *, channels: Sequence[Channel], templates: Templates, clock: Clock, ids: Ids) -> None:
        self._ways = ways_of(channels)
        self._kept_by = [channel.name for channel in channels if channel.keeps_messages]
        self._templates = templates
        self._clock = clock
        self._ids = ids

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await queue_notices(
            events=events,
            messages=PostgresMessages(connection),
            ways=self._ways,
            kept_by=self._kept_by,
            templates=self._templates,
            ids=self._ids,
            now=self._clock.now(),
        )


class WebhookConsumer:
    """Handles the events of WEBHOOK_TOPICS: a delivery for each webhook that wants one."""

    def __init__(self, *, store: PostgresWebhookStore, clock: Clock, ids: Ids) -> None:
        self._store = store
        self._clock = clock
        self._ids = ids

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await queue_events(
            events=events, changes=self._store.changes_on(connection), ids=self._ids, now=self._clock.now()
        )


async def while_heard(*, consume: Callable[[], Awaitable[None]], store: PostgresWebhookStore, pause_s: float) -> None:
    """Consume while there is a webhook, until cancelled. While there is none, no event is read for them at all: the
    position follows the log's end, one look every `pause_s`."""
    while True:
        if await store.pass_events_over(WEBHOOK_CONSUMER):
            await asyncio.sleep(pause_s)
            continue
        consuming = asyncio.ensure_future(consume())
        try:
            while not consuming.done() and not await store.pass_events_over(WEBHOOK_CONSUMER):
                await asyncio.wait({consuming}, timeout=pause_s)
            if consuming.done():
                consuming.result()  # It ends only through an error: to be told, and begun again after a pause.
        finally:
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
