"""Handing events to a handler, whatever log they come from: together, one by one, again, or not at all.

An effect, what was set aside, and the consumer's own mark of how far it is are written in one transaction, which the
caller holds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol
from uuid import UUID

import asyncpg
import msgspec
import structlog
from prometheus_client import Counter, Histogram

from payflow.contracts.topics import TOPICS
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.eventlog import dead_letters
from payflow.platform.eventlog.origin import flaw_of, read_events
from payflow.platform.lines import write_events_line
from payflow.platform.postgres import Connection
from payflow.platform.tracing.events import EVENT_LOG, reading

log = structlog.get_logger(__name__)

TRIES_PER_EVENT: Final = 3
# How long the events of one transaction are tried that fail through neither themselves nor something that passes: a bug
# in the handler, so far as one can tell, or a row that refers to nothing. Nothing behind them waits longer than this.
PATIENCE_S: Final = 4.0
# What an event can itself be at fault for.
_OWN_FAULT: Final = (
    ValueError,
    LookupError,
    TypeError,
    ArithmeticError,
    asyncpg.DataError,
    asyncpg.CheckViolationError,
)
# What passes or is repaired (a missing column or right, a deadlock, a service that is away): it is waited out, since an
# event that is skipped is skipped for good.
_PASSING: Final = (
    PayflowError,
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
consumed: Final = Counter("payflow_events_consumed_total", "Events whose effect was committed.", ["consumer"])
waits: Final = Counter("payflow_event_waits_total", "Times a consumer could not go on, and waited.", ["consumer"])
dead: Final = Counter("payflow_events_dead_lettered_total", "Events set aside.", ["consumer"])
_delay: Final = Histogram(
    "payflow_event_delay_seconds",
    "From when an event happened until its effect was committed; clocks of two machines may differ.",
    ["consumer"],
    buckets=(0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.5, 1, 5, 60),
)
_replayed: Final = Counter("payflow_events_replayed_total", "Events set aside and handled after all.", ["consumer"])


class EventHandler(Protocol):
    """Applies events in the consumer's transaction. Must not commit, and must not talk to anybody else."""

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None: ...


class BatchFailed(Exception):
    """One of the events handed over together is at fault: hand them over one by one, in a new transaction."""


class Delivery(msgspec.Struct, frozen=True):
    """An event on its way to the handler, and the position and role that its batch was written with."""

    event: Event
    position: int
    source: str


class Retried(NamedTuple):
    """A dead letter that was tried again. `cause`: why it stays one, if it does."""

    event_id: UUID
    events: list[Event]
    cause: str | None


def is_own_fault(error: Exception) -> bool:
    """Whether an event itself is to blame for what its handler raised, so that trying later would not help."""
    return isinstance(error, _OWN_FAULT) and not isinstance(error, PayflowError | OSError)


def is_passing(error: Exception) -> bool:
    """Whether what a handler raised has nothing to do with the event, and is waited out however long it takes."""
    is_refused = isinstance(error, asyncpg.IntegrityConstraintViolationError)
    return isinstance(error, _PASSING) and not is_own_fault(error) and not is_refused


def types_of(topics: Sequence[str]) -> frozenset[str]:
    """The event types of the named topics; raises KeyError for a topic that does not exist."""
    by_name = {topic.name: topic for topic in TOPICS}
    return frozenset(type_ for name in topics for type_ in by_name[name].types)


class Deliverer:
    """Hands events to one consumer's handler, sets aside those that it cannot handle, and tells what was had.

    `system` names what the events come through, for the traces.
    """

    def __init__(
        self,
        *,
        name: str,
        types: frozenset[str],
        handler: EventHandler,
        after_commit: Callable[[Sequence[Event]], None] | None = None,
        system: str = EVENT_LOG,
    ) -> None:
        self._name = name
        self._types = types
        self._handler = handler
        self._after_commit = after_commit
        self._system = system
        self._delay = _delay.labels(name)

    async def apply(self, connection: Connection, deliveries: Sequence[Delivery], *, is_careful: bool) -> list[Event]:
        """Have the effects of events, in their order; those that had one, the others are set aside.

        Together first: the usual case, in which none is at fault, needs no savepoint. Raises BatchFailed where one is:
        the caller begins a new transaction and calls again with `is_careful`. What is waited out is raised as it is.
        """
        events = [delivery.event for delivery in deliveries]
        with reading(self._name, events, system=self._system):
            if is_careful:
                return await self._apply_one_by_one(connection, deliveries)
            await self._apply_together(connection, events)
            return events

    async def _apply_together(self, connection: Connection, events: Sequence[Event]) -> None:
        try:
            await self._handler(connection, events)
        except Exception as error:
            if is_passing(error):
                raise
            log.warning("consumer.batch_failed", consumer=self._name, error=repr(error))
            raise BatchFailed from error

    def tell(self, events: Sequence[Event], *, is_again: bool = False) -> None:
        """Say that the effects of these events were had; called after the commit. `is_again`: they were asked for."""
        consumed.labels(self._name).inc(len(events))
        if not events:
            return
        if not is_again:
            now = datetime.now(UTC)
            for event in events:
                self._delay.observe(max(0.0, (now - event.time).total_seconds()))
        write_events_line(self._name, events)
        if self._after_commit is not None:
            self._after_commit(events)

    async def apply_again(self, connection: Connection, deliveries: Sequence[Delivery]) -> list[Event]:
        """As `apply`, together or else one by one, in the transaction at hand: for what is replayed."""
        try:
            async with connection.transaction():
                return await self.apply(connection, deliveries, is_careful=False)
        except BatchFailed:
            return await self.apply(connection, deliveries, is_careful=True)

    async def _apply_one_by_one(self, connection: Connection, deliveries: Sequence[Delivery]) -> list[Event]:
        patience = _Patience()
        done, faults = [], []
        for delivery in deliveries:
            fault = await self._fault_of(connection, [delivery.event], patience)
            if fault is None:
                done.append(delivery.event)
            else:
                faults.append((delivery, fault))
        is_everybodys = len(faults) == len(deliveries) > 1 and not any(is_own_fault(fault) for _, fault in faults)
        if is_everybodys:
            # A handler that fails at everything is broken, and no event is to blame: set aside, all of them would be.
            raise Unavailable(f"Every event fails: {faults[0][1]!r}") from faults[0][1]
        for delivery, fault in faults:
            await self.set_aside_event(connection, delivery, cause=repr(fault))
        return done

    async def _fault_of(self, connection: Connection, events: Sequence[Event], patience: _Patience) -> Exception | None:
        """Hand events over together, more than once if need be; None when their effect was had, else what is wrong."""
        attempt = 0
        while True:
            attempt += 1
            try:
                async with connection.transaction():
                    await self._handler(connection, events)
                return None
            except Exception as error:
                if is_passing(error):
                    raise
                is_over = attempt == TRIES_PER_EVENT if is_own_fault(error) else patience.is_over
                if is_over:
                    return error
            await asyncio.sleep(0.05 * attempt)

    async def sort_out(self, connection: Connection, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Those events that are wanted and genuine; a forged one is set aside."""
        genuine: list[Delivery] = []
        for delivery in deliveries:
            if delivery.event.type not in self._types:
                continue
            flaw = flaw_of(delivery.event, written_by=delivery.source)
            if flaw is None:
                genuine.append(delivery)
            else:
                await self.set_aside_event(connection, delivery, cause=flaw)
        return genuine

    async def set_aside_event(self, connection: Connection, delivery: Delivery, *, cause: str) -> None:
        """Keep an event as a dead letter."""
        await self.set_aside(
            connection,
            event_id=delivery.event.id,
            position=delivery.position,
            source=delivery.source,
            events=[delivery.event],
            cause=cause,
        )

    async def set_aside(
        self,
        connection: Connection,
        *,
        event_id: UUID,
        position: int,
        source: str,
        events: Sequence[Event] | bytes,
        cause: str,
    ) -> None:
        """Keep events, or the bytes of what cannot be read, as a dead letter."""
        log.error("consumer.dead_letter", consumer=self._name, event_id=str(event_id), written_by=source, cause=cause)
        dead.labels(self._name).inc()
        await dead_letters.set_aside(
            connection,
            consumer=self._name,
            event_id=event_id,
            position=position,
            source=source,
            events=events,
            cause=cause,
        )

    async def retry(self, connection: Connection) -> Retried | None:
        """Take one dead letter again, if one is asked for: its effect and its end are written together."""
        letter = await dead_letters.next_requested(connection, consumer=self._name)
        if letter is None:
            return None
        events, cause = await self._retry(connection, letter)
        await dead_letters.settle(connection, id=letter.id, cause=cause)
        return Retried(letter.event_id, events if cause is None else [], cause)

    def tell_retried(self, retried: Retried) -> None:
        """Say what came of a dead letter that was tried again; called after the commit."""
        tell = log.info if retried.cause is None else log.error
        tell("consumer.replayed", consumer=self._name, event_id=str(retried.event_id), cause=retried.cause)
        if retried.cause is None:
            _replayed.labels(self._name).inc()

    async def _retry(self, connection: Connection, letter: dead_letters.Requested) -> tuple[list[Event], str | None]:
        """Hand a dead letter's events over once more; why it stays one, if it does. A forged event stays forged."""
        try:
            events = [event for event in read_events(letter.events) if event.type in self._types]
        except ValueError as error:
            return [], f"unreadable: {error}"
        flaws = (flaw_of(event, written_by=letter.source) for event in events)
        flaw = next((flaw for flaw in flaws if flaw is not None), None)
        if flaw is not None or not events:
            return events, flaw
        fault = await self._fault_of(connection, events, _Patience())
        return events, None if fault is None else repr(fault)


class _Patience:
    """Ends PATIENCE_S after it was first asked, whoever asks."""

    def __init__(self) -> None:
        self._until: float | None = None

    @property
    def is_over(self) -> bool:
        now = asyncio.get_running_loop().time()
        if self._until is None:
            self._until = now + PATIENCE_S
        return now >= self._until
