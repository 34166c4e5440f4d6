"""The reading side: one position per consumer, moved in the same transaction as the effects of the events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

import asyncpg
import msgspec
import structlog
from prometheus_client import Counter, Gauge

from payflow.contracts.topics import TOPICS
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.eventlog.outbox import CHANNEL
from payflow.platform.postgres import Connection, Database

log = structlog.get_logger(__name__)

BATCHES_PER_READ: Final = 200
LOOK_ANYWAY_S: Final = 1.0
TRIES_PER_EVENT: Final = 3
REST_S: Final = 0.02
PASS_OVER_AFTER: Final = 1000
_decoder: Final = msgspec.msgpack.Decoder(list[Event])
_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")
_consumed: Final = Counter("payflow_events_consumed_total", "Events whose effect was committed.", ["consumer"])
_dead: Final = Counter("payflow_events_dead_lettered_total", "Events set aside after repeated failure.", ["consumer"])
_lag: Final = Gauge("payflow_event_lag_batches", "Numbered batches not yet read.", ["consumer"])


class EventHandler(Protocol):
    """Applies events in the consumer's transaction. Must not commit, and must not talk to anybody else."""

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None: ...


def types_of(topics: Sequence[str]) -> frozenset[str]:
    """The event types of the named topics; raises KeyError for a topic that does not exist."""
    by_name = {topic.name: topic for topic in TOPICS}
    return frozenset(type_ for name in topics for type_ in by_name[name].types)


class Consumer:
    """Reads the log in order and hands events of its topics to a handler.

    Every event is handed over at least once and its effect is committed once, together with the position. A handler
    that keeps failing on one event does not stop the log: after three tries the event is set aside as a dead letter.
    Several processes may run the same consumer; one at a time reads.
    """

    def __init__(
        self,
        *,
        name: str,
        topics: Sequence[str],
        handler: EventHandler,
        database: Database,
        listen_url: str,
        listen_password: str = "",
        after_commit: Callable[[Sequence[Event]], None] | None = None,
    ) -> None:
        self._name = name
        self._types = types_of(topics)
        self._type_list = sorted(self._types)
        self._handler = handler
        self._database = database
        self._listen_url = listen_url
        self._listen_password = listen_password
        self._after_commit = after_commit
        self._wake = asyncio.Event()
        self._is_registered = False
        # Up to where this process knows that there is nothing of ours, and the position that is stored.
        self._seen = self._stored = 0

    async def run(self) -> None:
        """Consume until cancelled; database failures are waited out."""
        listener = asyncio.create_task(self._listen())
        pause = 0.05
        try:
            while True:
                _stop_if_cancelled()
                try:
                    busy = await self.step()
                    pause = 0.05
                except (PayflowError, asyncpg.PostgresError) as error:
                    log.warning("consumer.waiting", consumer=self._name, error=repr(error))
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, 2.0)
                    continue
                if busy:
                    # The first event after a quiet moment goes at once; what comes right behind it is read together.
                    await asyncio.sleep(REST_S)
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_ANYWAY_S):
                            await self._wake.wait()
                    self._wake.clear()
        finally:
            # Waited for: only then is its connection closed.
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def step(self) -> bool:
        """Number what is new, then read once; returns whether there may be more to do soon."""
        if not self._is_registered:
            await self._database.execute(
                "INSERT INTO event_log.consumer (name, position) VALUES ($1, 0) ON CONFLICT DO NOTHING", self._name
            )
            self._is_registered = True
        numbered = await self._database.fetchval("SELECT event_log.number_batches(1000)")
        handled = await self._has_something() and await self._read_once()
        # -1: another consumer is numbering at this moment.
        return handled or numbered != 0

    async def _has_something(self) -> bool:
        """Whether batches with events of ours may stand after our position. Cheap, and takes no lock.

        Batches without any are passed over from time to time only, since moving the position costs a commit.
        """
        row = await self._database.fetchrow(
            "SELECT (SELECT position FROM event_log.log_end) AS last, "
            "EXISTS (SELECT FROM event_log.batch WHERE position > $1 AND types && $2) AS has_mine",
            self._seen,
            self._type_list,
        )
        if row is None or row["has_mine"]:
            return True
        is_far_behind = int(row["last"]) - self._stored >= PASS_OVER_AFTER
        if not is_far_behind:
            self._seen = max(self._seen, int(row["last"]))
        return is_far_behind

    async def _read_once(self) -> bool:
        handed: list[Event] = []
        async with self._database.transaction() as connection:
            position = await connection.fetchval(
                "SELECT position FROM event_log.consumer WHERE name = $1 FOR UPDATE SKIP LOCKED", self._name
            )
            if position is None:
                return False  # Another process reads for this consumer.
            rows = await self._batches_after(connection, position)
            if not rows:
                # Another process of this consumer has read what this one had not.
                self._seen = self._stored = int(position)
                return False
            for row in rows:
                handed.extend(self._mine(row["events"]) if row["events"] else ())
            last = int(rows[-1]["position"])
            await self._apply(connection, handed, last)
            await connection.execute(
                "UPDATE event_log.consumer SET position = $2, updated_at = now() WHERE name = $1", self._name, last
            )
        self._seen = self._stored = last
        _consumed.labels(self._name).inc(len(handed))
        _lag.labels(self._name).set(len(rows) if len(rows) == BATCHES_PER_READ else 0)
        if handed and self._after_commit is not None:
            self._after_commit(handed)
        return True

    async def _batches_after(self, connection: Connection, position: int) -> list[asyncpg.Record]:
        return await connection.fetch(
            "SELECT position, CASE WHEN types && $3 THEN events END AS events "
            "FROM event_log.batch WHERE position > $1 ORDER BY position LIMIT $2",
            position,
            BATCHES_PER_READ,
            self._type_list,
        )

    def _mine(self, encoded: bytes) -> list[Event]:
        return [event for event in _decoder.decode(encoded) if event.type in self._types]

    async def _apply(self, connection: Connection, events: list[Event], position: int) -> None:
        if not events:
            return
        try:
            async with connection.transaction():
                await self._handler(connection, events)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
            raise
        except Exception as error:
            log.warning("consumer.batch_failed", consumer=self._name, error=repr(error))
            for event in events:
                await self._apply_one(connection, event, position)

    async def _apply_one(self, connection: Connection, event: Event, position: int) -> None:
        for attempt in range(1, TRIES_PER_EVENT + 1):
            try:
                async with connection.transaction():
                    await self._handler(connection, [event])
                return
            except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError):
                raise
            except Exception as error:
                cause = repr(error)
                await asyncio.sleep(0.05 * attempt)
        log.error("consumer.dead_letter", consumer=self._name, event_id=str(event.id), cause=cause)
        _dead.labels(self._name).inc()
        await connection.execute(
            "INSERT INTO event_log.dead_letter (consumer, event_id, position, event, cause) "
            "VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            self._name,
            event.id,
            position,
            _encoder.encode(event),
            cause[:2000],
        )

    async def _listen(self) -> None:
        """Hold one connection that hears NOTIFY; when it is lost, make another. The loop looks anyway meanwhile."""
        while True:
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
                await self._listen_until_lost()
            await asyncio.sleep(1)

    async def _listen_until_lost(self) -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(
            self._listen_url, password=self._listen_password or None, timeout=5
        )
        lost = asyncio.Event()
        try:
            _stop_if_cancelled()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
            await lost.wait()
        finally:
            connection.terminate()


def _stop_if_cancelled() -> None:
    """Raise a cancellation that was swallowed on the way here.

    asyncpg gives back a connection that arrived in the same moment as the cancellation instead of raising it; a loop
    without end would then never hear that it should stop.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def drop_old_batches(*, database: Database, retention: timedelta) -> int:
    """Remove batches older than `retention` that every consumer has read; returns how many."""
    return int(await database.fetchval("SELECT event_log.drop_old_batches($1)", datetime.now(UTC) - retention))
