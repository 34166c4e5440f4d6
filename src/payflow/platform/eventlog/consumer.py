"""The reading side: one position per consumer, moved in the same transaction as the effects of the events."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, Protocol
from uuid import UUID, uuid5

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from payflow.contracts.topics import TOPICS
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.eventlog import dead_letters
from payflow.platform.eventlog.origin import flaw_of, read_events
from payflow.platform.eventlog.outbox import CHANNEL
from payflow.platform.lines import write_events_line
from payflow.platform.postgres import Connection, Database
from payflow.platform.tracing.events import reading

log = structlog.get_logger(__name__)

BATCHES_PER_READ: Final = 200
LOOK_ANYWAY_S: Final = 1.0
TRIES_PER_EVENT: Final = 3
# How long a consumer rests after it has read something, so that what comes right behind is read together: a little at
# first, twice as long after each further reading, until a look finds nothing. A lone event is never kept waiting.
REST_S: Final = 0.02
REST_MAX_S: Final = 0.16
PASS_OVER_AFTER: Final = 1000
COMPLAIN_AFTER: Final = 5
# What an event can itself be at fault for. Everything else (a missing column or right, a deadlock, a service that is
# away, a bug elsewhere) passes or is repaired, and then the event is handled: nothing is skipped because of it.
_OWN_FAULT: Final = (
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    asyncpg.DataError,
    asyncpg.CheckViolationError,
)
# Names a batch that cannot be read, so that it is set aside once.
_UNREADABLE: Final = UUID("6f0d3a52-6e0c-4bb5-9d0f-2a4f7c1d5e88")
_consumed: Final = Counter("payflow_events_consumed_total", "Events whose effect was committed.", ["consumer"])
_dead: Final = Counter("payflow_events_dead_lettered_total", "Events set aside through their own fault.", ["consumer"])
_replayed: Final = Counter("payflow_events_replayed_total", "Events set aside and handled after all.", ["consumer"])
_waits: Final = Counter("payflow_event_waits_total", "Times a consumer could not go on, and waited.", ["consumer"])
_lag: Final = Gauge("payflow_event_lag_batches", "Numbered batches not yet read.", ["consumer"])


class EventHandler(Protocol):
    """Applies events in the consumer's transaction. Must not commit, and must not talk to anybody else."""

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None: ...


class _BatchFailed(Exception):
    """One of the events handed over together is at fault: they are to be handed over one by one."""


class Delivery(NamedTuple):
    """An event on its way to the handler, and the batch's position and role that it came with."""

    event: Event
    position: int
    source: str


def is_own_fault(error: Exception) -> bool:
    """Whether an event itself is to blame for what its handler raised, so that trying later would not help."""
    return isinstance(error, _OWN_FAULT) and not isinstance(error, PayflowError | OSError)


def types_of(topics: Sequence[str]) -> frozenset[str]:
    """The event types of the named topics; raises KeyError for a topic that does not exist."""
    by_name = {topic.name: topic for topic in TOPICS}
    return frozenset(type_ for name in topics for type_ in by_name[name].types)


class Consumer:
    """Reads the log in order and hands events of its topics to a handler.

    Every event is handed over at least once and its effect is committed once, together with the position. An event
    that is itself at fault (`is_own_fault`, three times), cannot be read, or is forged (see origin.py) does not stop
    the log: it is set aside as a dead letter until `payflow events replay`. At any other error the consumer waits and
    says so. `name` is the service's: the database lets a service's role move no other position. `types` are the event
    types wanted of the topics, where not all are.
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
    ) -> None:
        self._name = name
        self._types = types_of(topics) if types is None else types_of(topics) & frozenset(types)
        self._type_list = sorted(self._types)
        self._handler = handler
        self._database = database
        self._listen_url = listen_url
        self._listen_password = listen_password
        self._after_commit = after_commit
        self._wake = asyncio.Event()
        self._is_registered = False
        self._failures = 0
        # Up to where this process knows that there is nothing of ours, and the position that is stored.
        self._seen = self._stored = 0
        self._rest_s = REST_S

    async def run(self) -> None:
        """Consume until cancelled; whatever is not an event's own fault is waited out, up to 2 s at a time."""
        listener = asyncio.create_task(self._listen())
        try:
            while True:
                _stop_if_cancelled()
                try:
                    busy = await self.step()
                except Exception as error:
                    await self._wait_out(error)
                    continue
                self._failures = 0
                if busy:
                    await asyncio.sleep(self._rest_s)
                    self._rest_s = min(2 * self._rest_s, REST_MAX_S)
                else:
                    self._rest_s = REST_S
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
        _waits.labels(self._name).inc()
        tell = log.warning if self._failures < COMPLAIN_AFTER else log.error
        tell("consumer.waiting", consumer=self._name, error=repr(error), failures=self._failures)
        await asyncio.sleep(min(0.05 * 2 ** min(self._failures - 1, 10), 2.0))

    async def step(self) -> bool:
        """Number what is new, read once, and replay one dead letter; returns whether there may be more to do soon."""
        if not self._is_registered:
            await self._database.execute(
                "INSERT INTO event_log.consumer (name, position) VALUES ($1, 0) ON CONFLICT DO NOTHING", self._name
            )
            self._is_registered = True
        numbered, has_batches, has_replays = await self._look()
        handled = has_batches and await self._read()
        replayed = has_replays and await self._replay_once()
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
        if not has_mine and last - self._stored < PASS_OVER_AFTER:
            self._seen = max(self._seen, last)
            return numbered, False, has_replays
        return numbered, True, has_replays

    async def _read(self) -> bool:
        """Read once; where an event is at fault, once more with each event in a savepoint of its own."""
        try:
            return await self._read_once(is_careful=False)
        except _BatchFailed as failed:
            log.warning("consumer.batch_failed", consumer=self._name, error=repr(failed.__cause__))
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
            last = int(rows[-1]["position"])
            if handed:
                with reading(self._name, [delivery.event for delivery in handed]):
                    await (self._apply_one_by_one if is_careful else self._apply)(connection, handed)
            await connection.execute(
                "UPDATE event_log.consumer SET position = $2, updated_at = now() WHERE name = $1", self._name, last
            )
        self._seen = self._stored = last
        _lag.labels(self._name).set(len(rows) if len(rows) == BATCHES_PER_READ else 0)
        self._tell([delivery.event for delivery in handed])
        return True

    def _tell(self, events: Sequence[Event]) -> None:
        _consumed.labels(self._name).inc(len(events))
        if events:
            write_events_line(self._name, events)
        if events and self._after_commit is not None:
            self._after_commit(events)

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
            await self._set_aside(
                connection,
                event_id=uuid5(_UNREADABLE, str(row["id"])),
                position=position,
                source=source,
                events=row["events"],
                cause=f"unreadable: {error}",
            )
            return []
        genuine: list[Delivery] = []
        for event in events:
            if event.type not in self._types:
                continue
            flaw = flaw_of(event, written_by=source)
            if flaw is None:
                genuine.append(Delivery(event, position, source))
            else:
                await self._set_aside_event(connection, Delivery(event, position, source), cause=flaw)
        return genuine

    async def _apply(self, connection: Connection, deliveries: list[Delivery]) -> None:
        """Hand all events over together: the usual case, in which none is at fault, needs no savepoint."""
        try:
            await self._handler(connection, [delivery.event for delivery in deliveries])
        except Exception as error:
            if not is_own_fault(error):
                raise
            raise _BatchFailed from error

    async def _apply_one_by_one(self, connection: Connection, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            cause = await self._fault_of(connection, [delivery.event])
            if cause is not None:
                await self._set_aside_event(connection, delivery, cause=cause)

    async def _fault_of(self, connection: Connection, events: Sequence[Event]) -> str | None:
        """Hand events over together, three times at most; None when their effect was had, else what is wrong."""
        cause = None
        for attempt in range(1, TRIES_PER_EVENT + 1):
            try:
                async with connection.transaction():
                    await self._handler(connection, events)
                return None
            except Exception as error:
                if not is_own_fault(error):
                    raise
                cause = repr(error)
                await asyncio.sleep(0.05 * attempt)
        return cause

    async def _set_aside_event(self, connection: Connection, delivery: Delivery, *, cause: str) -> None:
        await self._set_aside(
            connection,
            event_id=delivery.event.id,
            position=delivery.position,
            source=delivery.source,
            events=[delivery.event],
            cause=cause,
        )

    async def _set_aside(
        self,
        connection: Connection,
        *,
        event_id: UUID,
        position: int,
        source: str,
        events: Sequence[Event] | bytes,
        cause: str,
    ) -> None:
        log.error("consumer.dead_letter", consumer=self._name, event_id=str(event_id), written_by=source, cause=cause)
        _dead.labels(self._name).inc()
        await dead_letters.set_aside(
            connection,
            consumer=self._name,
            event_id=event_id,
            position=position,
            source=source,
            events=events,
            cause=cause,
        )

    async def _replay_once(self) -> bool:
        """Take one dead letter again, if one is asked for: its effect and its end are committed together."""
        async with self._database.transaction() as connection:
            # The position's lock: one process at a time works for this consumer.
            if await self._lock_position(connection) is None:
                return False
            letter = await dead_letters.next_requested(connection, consumer=self._name)
            if letter is None:
                return False
            events, cause = await self._replay(connection, letter)
            await dead_letters.settle(connection, id=letter.id, cause=cause)
        tell = log.info if cause is None else log.error
        tell("consumer.replayed", consumer=self._name, event_id=str(letter.event_id), cause=cause)
        if cause is None:
            _replayed.labels(self._name).inc()
            self._tell(events)
        return True

    async def _replay(self, connection: Connection, letter: dead_letters.Requested) -> tuple[list[Event], str | None]:
        """Hand a dead letter's events over once more; why it stays one, if it does. A forged event stays forged."""
        try:
            events = [event for event in read_events(letter.events) if event.type in self._types]
        except ValueError as error:
            return [], f"unreadable: {error}"
        flaws = (flaw_of(event, written_by=letter.source) for event in events)
        flaw = next((flaw for flaw in flaws if flaw is not None), None)
        return events, flaw or await self._fault_of(connection, events)

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
