"""The reading side on PostgreSQL: one position per consumer, moved in the same transaction as the events' effects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID, uuid5

import asyncpg
import structlog
from prometheus_client import Gauge

from payflow.kernel.envelope import Event
from payflow.platform.eventlog import inbox, replays
from payflow.platform.eventlog.delivery import (
    BatchFailed,
    Deliverer,
    Delivery,
    EventHandler,
    Retried,
    types_of,
    waits,
)
from payflow.platform.eventlog.origin import read_events
from payflow.platform.eventlog.outbox import CHANNEL
from payflow.platform.eventlog.rests import REST_MIN_S, Rests
from payflow.platform.postgres import Connection, Database
from payflow.platform.servers import Connector

log = structlog.get_logger(__name__)

BATCHES_PER_READ: Final = 200
LOOK_ANYWAY_S: Final = 1.0
PASS_OVER_AFTER: Final = 1000
COMPLAIN_AFTER: Final = 5
# The log is searched by when something was written, and events tell when they happened: earlier, by another clock.
CLOCKS_DIFFER: Final = timedelta(hours=1)
# Names a batch that cannot be read, so that it is set aside once.
UNREADABLE: Final = UUID("6f0d3a52-6e0c-4bb5-9d0f-2a4f7c1d5e88")
# Up to the end of the log, for a consumer that has ever read from Kafka: a relay that died had sent more than it noted.
_HAD_FROM_KAFKA: Final = (
    "SELECT CASE WHEN EXISTS (SELECT FROM event_log.inbox WHERE consumer = $1) "
    "THEN (SELECT position FROM event_log.log_end) ELSE 0 END"
)
_lag: Final = Gauge("payflow_event_lag_batches", "Numbered batches not yet read.", ["consumer"])


class Consumer:
    """Reads the log in order and hands events of its topics to a handler.

    Every event is handed over at least once and its effect is committed once, together with the position. An event
    that cannot be handled (see delivery.py), cannot be read, or is forged (see origin.py) does not stop the log: it is
    set aside as a dead letter until `payflow events dlq retry`. At an error that passes the consumer waits and says so.
    `name` is the service's: the database lets a service's role move no other position. `types` are the event types
    wanted of the topics, where not all are. `rest_min_s`: seconds between two readings at least.
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
        types: Collection[str] | None = None,
        rest_min_s: float = REST_MIN_S,
    ) -> None:
        self._name = name
        self._types = types_of(topics) if types is None else types_of(topics) & frozenset(types)
        self._type_list = sorted(self._types)
        self._deliverer = Deliverer(name=name, types=self._types, handler=handler, after_commit=after_commit)
        self._database = database
        self._listen_url = listen_url
        self._listen_password = listen_password
        self._wake = asyncio.Event()
        self._is_registered = False
        self._failures = 0
        # Up to where this process knows that there is nothing of ours, and the position that is stored.
        self._seen = self._stored = 0
        # Up to here events may have gone to Kafka, and may have been handled from there.
        self._relayed = 0
        self._rests = Rests(shortest_s=rest_min_s)
        # Events that were read since the last rest.
        self._read_events = 0

    async def run(self) -> None:
        """Consume until cancelled; whatever is not an event's own fault is waited out, up to 2 s at a time."""
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                stop_if_cancelled()
                try:
                    busy = await self.step()
                except Exception as error:
                    await self._wait_out(error)
                    continue
                self._failures = 0
                if busy:
                    await asyncio.sleep(self._rests.after(self._read_events))
                    self._read_events = 0
                else:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(LOOK_ANYWAY_S):
                            await self._wake.wait()
                    self._wake.clear()
        finally:
            # Waited for: only then is its connection closed.
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def is_reading(self) -> bool:
        """A health check: False while the consumer keeps failing and waits."""
        return self._failures < COMPLAIN_AFTER

    async def _wait_out(self, error: Exception) -> None:
        self._failures += 1
        waits.labels(self._name).inc()
        tell = log.warning if self._failures < COMPLAIN_AFTER else log.error
        tell("consumer.waiting", consumer=self._name, error=repr(error), tries=self._failures)
        await asyncio.sleep(min(0.05 * 2 ** min(self._failures - 1, 10), 2.0))

    async def step(self) -> bool:
        """Number what is new, read once, and replay one dead letter; returns whether there may be more to do soon."""
        if not self._is_registered:
            await self._database.execute(
                "INSERT INTO event_log.consumer (name, position) VALUES ($1, 0) ON CONFLICT DO NOTHING", self._name
            )
            await self._database.fetchval("SELECT event_log.read_from_kafka(false)")
            self._relayed = int(await self._database.fetchval(_HAD_FROM_KAFKA, self._name))
            self._is_registered = True
        numbered, has_batches, has_replays = await self._look()
        handled = has_batches and await self._read()
        replayed = has_replays and (await self._retry_once() or await self._replay_piece())
        # -1: another consumer is numbering at this moment.
        return handled or replayed or numbered != 0

    async def _look(self) -> tuple[int, bool, bool]:
        """Number what is new; whether batches with events of ours may stand after our position, and whether a replay is
        asked for.

        Cheap: it locks and writes only where there is something to number. Batches without any event of ours are passed
        over from time to time only, since moving the position costs a commit.
        """
        row = await self._database.fetchrow(
            "SELECT numbered, last, has_mine, has_replays FROM event_log.look_after($1, $2, $3)",
            self._seen,
            self._type_list,
            self._name,
        )
        if row is None:
            return 0, True, False
        numbered, last, has_mine, has_replays = row.values()
        _lag.labels(self._name).set(max(0, last - max(self._stored, self._seen)) if has_mine else 0)
        if not has_mine and last - self._stored < PASS_OVER_AFTER:
            self._seen = max(self._seen, last)
            return numbered, False, has_replays
        return numbered, True, has_replays

    async def _read(self) -> bool:
        """Read once; where an event is at fault, once more with each event in a savepoint of its own."""
        try:
            return await self._read_once(is_careful=False)
        except BatchFailed:
            return await self._read_once(is_careful=True)

    async def _read_once(self, *, is_careful: bool) -> bool:
        handed: list[Delivery] = []
        async with self._database.transaction() as connection:
            rows = await self._batches(connection)
            if not rows:
                return False  # Another process reads for this consumer.
            if rows[0]["id"] is None:
                # Another process of this consumer has read what this one had not.
                self._seen = self._stored = int(rows[0]["stored"])
                return False
            for row in rows:
                handed.extend(await self._deliveries(connection, row) if row["events"] is not None else ())
            handed = await self._not_had_from_kafka(connection, handed)
            last = int(rows[-1]["position"])
            done = await self._deliverer.apply(connection, handed, is_careful=is_careful) if handed else []
            await connection.execute(
                "UPDATE event_log.consumer SET position = $2, updated_at = now() WHERE name = $1", self._name, last
            )
        self._seen = self._stored = last
        self._read_events += len(handed)
        self._deliverer.tell(done)
        return True

    async def _not_had_from_kafka(self, connection: Connection, deliveries: list[Delivery]) -> list[Delivery]:
        """Without what this consumer handled while the events went through Kafka."""
        relayed = [delivery.event.id for delivery in deliveries if delivery.position <= self._relayed]
        if not relayed:
            return deliveries
        had = await inbox.known(connection, consumer=self._name, event_ids=relayed)
        return [delivery for delivery in deliveries if delivery.event.id not in had]

    async def _lock_position(self, connection: Connection) -> int | None:
        position = await connection.fetchval(
            "SELECT position FROM event_log.consumer WHERE name = $1 FOR UPDATE SKIP LOCKED", self._name
        )
        return None if position is None else int(position)

    async def _batches(self, connection: Connection) -> list[asyncpg.Record]:
        """Lock the position and read the batches behind it: a row without an id when there are none, no row at all when
        another process has the lock."""
        return await connection.fetch(
            "WITH mine AS (SELECT position FROM event_log.consumer WHERE name = $1 FOR UPDATE SKIP LOCKED) "
            "SELECT mine.position AS stored, batch.* FROM mine LEFT JOIN LATERAL ("
            "SELECT id, position, source, CASE WHEN types && $3 THEN events END AS events FROM event_log.batch "
            "WHERE position > mine.position ORDER BY position LIMIT $2) AS batch ON true",
            self._name,
            BATCHES_PER_READ,
            self._type_list,
        )

    async def _deliveries(self, connection: Connection, row: asyncpg.Record) -> list[Delivery]:
        """The events of a batch that are ours and genuine; the others are set aside."""
        position, source = int(row["position"]), str(row["source"])
        try:
            events = read_events(row["events"])
        except ValueError as error:
            await self._deliverer.set_aside(
                connection,
                event_id=uuid5(UNREADABLE, str(row["id"])),
                position=position,
                source=source,
                events=row["events"],
                cause=f"unreadable: {error}",
            )
            return []
        return await self._deliverer.sort_out(connection, [Delivery(event, position, source) for event in events])

    async def _retry_once(self) -> bool:
        """Take one dead letter again, if one is asked for: its effect and its end are committed together."""
        retried: Retried | None = None
        async with self._database.transaction() as connection:
            # The position's lock: one process at a time works for this consumer.
            if await self._lock_position(connection) is not None:
                retried = await self._deliverer.retry(connection)
        if retried is None:
            return False
        self._deliverer.tell_retried(retried)
        self._deliverer.tell(retried.events, is_again=True)
        return True

    async def _replay_piece(self) -> bool:
        """Hand over the next piece of a replay, if one is asked for; its effects and its progress are committed
        together."""
        handed: list[Delivery] = []
        async with self._database.transaction() as connection:
            replay = await replays.next_replay(connection, consumer=self._name)
            if replay is None:
                return False
            progress = replay.progress or await self._begin_replay(connection, replay)
            rows = await connection.fetch(
                "SELECT id, position, source, CASE WHEN types && $4 THEN events END AS events FROM event_log.batch "
                "WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3",
                progress["after"],
                progress["until"],
                BATCHES_PER_READ,
                list(replay.of.types),
            )
            for row in rows:
                found = await self._deliveries(connection, row) if row["events"] is not None else []
                handed += [delivery for delivery in found if replay.wants(delivery.event)]
            done = await self._deliverer.apply_again(connection, handed) if handed else []
            is_finished = len(rows) < BATCHES_PER_READ
            progress["after"] = rows[-1]["position"] if rows else progress["until"]
            await replays.save_progress(
                connection, id=replay.id, progress=progress, handed=len(handed), is_finished=is_finished
            )
        self._deliverer.tell(done, is_again=True)
        return True

    async def _begin_replay(self, connection: Connection, replay: replays.Replay) -> dict[str, Any]:
        """From the first batch that may have such an event up to what this consumer has read."""
        row = await connection.fetchrow(
            "SELECT coalesce((SELECT min(position) - 1 FROM event_log.batch WHERE created_at >= $2), position) "
            "AS after, position AS until FROM event_log.consumer WHERE name = $1",
            self._name,
            replay.from_time - CLOCKS_DIFFER,
        )
        return {"after": 0, "until": 0} if row is None else dict(row)

    async def _listen(self) -> None:
        """Hold one connection that hears NOTIFY; when it is lost, make another. The loop looks anyway meanwhile."""
        while True:
            # InternalClientError: of several servers none is the primary at the moment.
            with suppress(
                OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError
            ):
                await self._listen_until_lost()
            await asyncio.sleep(1)

    async def _listen_until_lost(self) -> None:
        connection = await Connector(self._listen_url)(password=self._listen_password or None, timeout=5)
        lost = asyncio.Event()
        try:
            stop_if_cancelled()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
            await lost.wait()
        finally:
            connection.terminate()


def stop_if_cancelled() -> None:
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
