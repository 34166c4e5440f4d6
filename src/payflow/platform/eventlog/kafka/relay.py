"""The outbox relay: publishes to Kafka what services wrote into the event log, in the order of its positions.

Every process that relays tries for one lock; who has it publishes, the others stand by and have it at once when its
holder's connection ends. Should two publish all the same (the old holder was stopped and goes on), records are doubled,
not reordered: each begins at or before the stored position and goes on in order. Consumers tell doubles by their id.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID, uuid5

import asyncpg
import structlog
from prometheus_client import Counter, Gauge

from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.eventlog import dead_letters
from payflow.platform.eventlog.consumer import COMPLAIN_AFTER, UNREADABLE
from payflow.platform.eventlog.dead_letters import RELAY
from payflow.platform.eventlog.delivery import dead, waits
from payflow.platform.eventlog.kafka.config import Kafka
from payflow.platform.eventlog.kafka.publisher import Publisher
from payflow.platform.eventlog.kafka.wire import Outgoing, to_record
from payflow.platform.eventlog.origin import flaw_of, read_events
from payflow.platform.eventlog.outbox import CHANNEL
from payflow.platform.eventlog.rests import Rests
from payflow.platform.postgres import Connection, Database
from payflow.platform.servers import Connector
from payflow.platform.tracing.events import publishing

log = structlog.get_logger(__name__)

T = TypeVar("T")

BATCHES_PER_TURN: Final = 100
# A holder of the lock that says nothing for so long was stopped: the server ends its connection, which frees the lock.
LEASE_S: Final = 5
LOOK_S: Final = 1.0
# Shorter than a reader of PostgreSQL rests: behind the relay, records are on their way through Kafka for as long again.
REST_MAX_S: Final = 0.07
# Each turn costs the broker and every consumer something: at thousands of events a second there are fewer turns.
REST_BUSIEST_S: Final = 0.15
STAND_BY_S: Final = 0.25
COMPLAIN_AFTER_S: Final = 10.0
# Any constant: it only has to differ from other users of advisory locks in this database.
_LOCK_KEY: Final = 0x5041_5952_454C_4159
_unsent_s: Final = Gauge("payflow_outbox_oldest_unsent_seconds", "Age of the oldest batch that is not in Kafka.")
_unsent: Final = Gauge("payflow_outbox_unsent_batches", "Numbered batches that are not in Kafka.")
_published: Final = Counter("payflow_outbox_published_total", "Events that were published to Kafka.")


class _SetAside(NamedTuple):
    """What cannot be published, and why."""

    event_id: UUID
    position: int
    source: str
    events: Sequence[Event] | bytes
    cause: str


class _Turn(NamedTuple):
    """A stretch of the outbox: its last position, its events with their records, and what is set aside of it."""

    last: int
    events: list[tuple[Event, int, str]]
    records: list[Outgoing]
    set_aside: list[_SetAside]


class OutboxRelay:
    """Publishes the outbox while this process has the lock. Run `run` in the background of more than one process."""

    def __init__(
        self, *, kafka: Kafka, database: Database, listen_url: str, listen_password: str, client_id: str
    ) -> None:
        self._publisher = Publisher(kafka, client_id=client_id)
        self._database = database
        self._listen_url = listen_url
        self._listen_password = listen_password
        self._wake = asyncio.Event()
        self._failures = 0
        self._turn_began_at: float | None = None
        self._measures_at = 0.0

    async def run(self) -> None:
        """Relay until cancelled; whatever fails is waited out, up to 2 s at a time."""
        try:
            while True:
                try:
                    await self._relay()
                except (
                    PayflowError,
                    OSError,
                    asyncpg.PostgresError,
                    asyncpg.InterfaceError,
                    asyncpg.InternalClientError,
                ) as error:
                    self._failures += 1
                    waits.labels(RELAY).inc()
                    tell = log.warning if self._failures < COMPLAIN_AFTER else log.error
                    tell("relay.waiting", error=repr(error), tries=self._failures)
                    await asyncio.sleep(min(0.05 * 2 ** min(self._failures - 1, 10), 2.0))
        finally:
            await self._publisher.close()

    async def is_publishing(self) -> bool:
        """A health check: False while publishing keeps failing, or takes very long."""
        began_at = self._turn_began_at
        is_slow = began_at is not None and asyncio.get_running_loop().time() - began_at > COMPLAIN_AFTER_S
        return self._failures < COMPLAIN_AFTER and not is_slow

    async def _relay(self) -> None:
        await self._database.fetchval("SELECT event_log.read_from_kafka(true)")
        async with self._connected() as lock:
            is_mine, rests = False, Rests(longest_s=REST_MAX_S, busiest_s=REST_BUSIEST_S)
            while True:
                if is_mine:
                    await lock.fetchval("SELECT 1")
                else:
                    is_mine = bool(await lock.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY))
                    if is_mine:
                        log.info("relay.took_over")
                published = await self._look(lock, is_mine=is_mine) if is_mine or self._is_time_to_measure() else None
                self._failures = 0
                if published is not None:
                    await asyncio.sleep(rests.after(published))
                else:
                    await self._wait(is_mine=is_mine)

    def _is_time_to_measure(self) -> bool:
        """Whether one who stands by should look: seldom, since whoever looks numbers, and keeps the holder from it."""
        now = asyncio.get_running_loop().time()
        if now < self._measures_at:
            return False
        self._measures_at = now + LOOK_S
        return True

    async def _wait(self, *, is_mine: bool) -> None:
        """Wait until something is written, or for a while."""
        if not is_mine:
            await asyncio.sleep(STAND_BY_S)
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_S):
                await self._wake.wait()
        self._wake.clear()

    async def _look(self, lock: asyncpg.Connection[Any], *, is_mine: bool) -> int | None:
        """Publish what is next, if it is this process's turn: how many events; None when there was nothing to do."""
        row = await self._database.fetchrow(
            "SELECT numbered, done, last, has_retries, "
            "coalesce(extract(epoch FROM clock_timestamp() - waits_since), 0)::float8 AS waits_s "
            "FROM event_log.look_after_relay()"
        )
        assert row is not None
        numbered, done, last, has_retries, waits_s = row.values()
        _unsent.set(max(0, last - done))
        _unsent_s.set(max(0.0, waits_s))
        if not is_mine:
            return None
        if last > done:
            return await self._take_turn(lock, after=done)
        if numbered < 0:
            # Somebody else is numbering at this moment: what is new is seen right after.
            return 0
        return 1 if has_retries and await self._retry(lock) else None

    async def _take_turn(self, lock: asyncpg.Connection[Any], *, after: int) -> int:
        """Publish a stretch of the outbox behind a position; how many events."""
        turn = _prepare(
            await self._database.fetch(
                "SELECT id, position, source, events FROM event_log.batch "
                "WHERE position > $1 ORDER BY position LIMIT $2",
                after,
                BATCHES_PER_TURN,
            ),
            after=after,
        )
        with publishing([event for event, _, _ in turn.events]):
            refused = await self._publish(lock, turn.records)
        async with self._database.transaction() as connection:
            moved = await connection.execute(
                "UPDATE event_log.relay SET position = $2, updated_at = now() WHERE position = $1", after, turn.last
            )
            if moved == "UPDATE 0":
                log.warning("relay.overtaken", after=after)
                return 0
            for index, cause in sorted(refused.items()):
                event, position, source = turn.events[index]
                turn.set_aside.append(_SetAside(event.id, position, source, [event], f"refused by Kafka: {cause}"))
            for flawed in turn.set_aside:
                await _set_aside(connection, flawed)
        published = len(turn.records) - len(refused)
        _published.inc(published)
        return published

    async def _publish(self, lock: asyncpg.Connection[Any], records: list[Outgoing]) -> dict[int, str]:
        """Publish, and keep the lock alive meanwhile. Gives up when the lock is lost."""
        self._turn_began_at = asyncio.get_running_loop().time()
        try:
            return await _keeping_alive(lock, self._publisher.publish(records))
        finally:
            self._turn_began_at = None

    async def _retry(self, lock: asyncpg.Connection[Any]) -> bool:
        """Publish one of the events that were set aside again, if that is asked for."""
        async with self._database.transaction() as connection:
            letter = await dead_letters.next_requested(connection, consumer=RELAY)
        if letter is None:
            return False
        turn = _prepare([{"id": 0, "position": 0, "source": letter.source, "events": letter.events}], after=0)
        refused = await self._publish(lock, turn.records)
        causes = [flawed.cause for flawed in turn.set_aside] + [f"refused by Kafka: {why}" for why in refused.values()]
        async with self._database.transaction() as connection:
            await dead_letters.settle(connection, id=letter.id, cause=causes[0] if causes else None)
        log.info("relay.retried", event_id=str(letter.event_id), cause=causes[0] if causes else None)
        return True

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection of the lock's own, which also hears when there is something to publish."""
        connection = await Connector(self._listen_url)(
            password=self._listen_password or None,
            timeout=5,
            command_timeout=LEASE_S,
            server_settings={"application_name": "payflow-relay", "idle_session_timeout": f"{LEASE_S}s"},
        )
        try:
            await connection.add_listener(CHANNEL, lambda *_: self._wake.set())
            yield connection
        finally:
            connection.terminate()


async def _keeping_alive(lock: asyncpg.Connection[Any], work: Awaitable[T]) -> T:
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK_S))[0]:
            await lock.fetchval("SELECT 1")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _prepare(rows: Sequence[Any], *, after: int) -> _Turn:
    """The records of batches, in order; what cannot be read, or is forged, is set aside instead."""
    turn = _Turn(int(rows[-1]["position"]) if rows else after, [], [], [])
    for row in rows:
        position, source = int(row["position"]), str(row["source"])
        try:
            events = read_events(row["events"])
        except ValueError as error:
            id = uuid5(UNREADABLE, str(row["id"]))
            turn.set_aside.append(_SetAside(id, position, source, row["events"], f"unreadable: {error}"))
            continue
        for event in events:
            record, flaw = _record_of(event, position=position, source=source)
            if record is None:
                turn.set_aside.append(_SetAside(event.id, position, source, [event], flaw))
            else:
                turn.events.append((event, position, source))
                turn.records.append(record)
    return turn


def _record_of(event: Event, *, position: int, source: str) -> tuple[Outgoing | None, str]:
    flaw = flaw_of(event, written_by=source)
    if flaw is not None:
        return None, flaw
    try:
        return to_record(event, position=position), ""
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        return None, f"unreadable: {error!r}"


async def _set_aside(connection: Connection, flawed: _SetAside) -> None:
    log.error("relay.dead_letter", event_id=str(flawed.event_id), written_by=flawed.source, cause=flawed.cause)
    dead.labels(RELAY).inc()
    await dead_letters.set_aside(
        connection,
        consumer=RELAY,
        event_id=flawed.event_id,
        position=flawed.position,
        source=flawed.source,
        events=flawed.events,
        cause=flawed.cause,
    )
