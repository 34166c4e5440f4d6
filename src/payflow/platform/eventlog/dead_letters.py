"""Events that were set aside: kept with their cause until somebody has them handed to their consumer again.

The relay to Kafka, too, sets aside what cannot be published; its name among the consumers is RELAY.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.origin import read_events
from payflow.platform.eventlog.outbox import CHANNEL
from payflow.platform.postgres import Connection

RELAY: Final = "relay"
CAUSE_MAX: Final = 2000
Owner: TypeAlias = "asyncpg.Connection[Any]"
_encoder: Final = msgspec.msgpack.Encoder(uuid_format="bytes")


class Requested(NamedTuple):
    """A dead letter that is to be tried again."""

    id: int
    event_id: UUID
    source: str
    events: bytes


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter as an operator sees it. `types` and `events` are empty where the batch cannot be read.

    `position` is that of its batch in the log. A discarded one has been given up, by whom and why.
    """

    consumer: str
    event_id: UUID
    types: list[str]
    subject: str | None
    source: str
    position: int
    cause: str
    failed_at: datetime
    replay_requested_at: datetime | None
    discarded_at: datetime | None
    discarded_by: str | None
    discard_reason: str | None
    events: list[Event]


# --- the consumer's side ----------------------------------------------------------------------------------------


async def set_aside(
    connection: Connection,
    *,
    consumer: str,
    event_id: UUID,
    position: int,
    source: str,
    events: Sequence[Event] | bytes,
    cause: str,
) -> None:
    """Keep an event, or the bytes of a batch that cannot be read, in the transaction that moves the position on."""
    await connection.execute(
        "INSERT INTO event_log.dead_letter (consumer, event_id, position, source, events, cause) "
        "VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        consumer,
        event_id,
        position,
        source,
        events if isinstance(events, bytes) else _encoder.encode(list(events)),
        cause[:CAUSE_MAX].replace("\x00", "?"),
    )


async def next_requested(connection: Connection, *, consumer: str) -> Requested | None:
    """The oldest dead letter of a consumer that is to be tried again."""
    row = await connection.fetchrow(
        "SELECT id, event_id, source, events FROM event_log.dead_letter "
        "WHERE consumer = $1 AND replay_requested_at IS NOT NULL ORDER BY id LIMIT 1",
        consumer,
    )
    return None if row is None else Requested(*row.values())


async def settle(connection: Connection, *, id: int, cause: str | None) -> None:
    """Forget a dead letter that was handled; one that failed again stays, with the new cause."""
    if cause is None:
        await connection.execute("DELETE FROM event_log.dead_letter WHERE id = $1", id)
        return
    await connection.execute(
        "UPDATE event_log.dead_letter SET cause = $2, failed_at = now(), replay_requested_at = NULL WHERE id = $1",
        id,
        cause[:CAUSE_MAX].replace("\x00", "?"),
    )


# --- the operator's side, as the database's owner ----------------------------------------------------------------


async def list_dead_letters(
    connection: Owner, *, event_id: UUID | None = None, with_discarded: bool = False
) -> list[DeadLetter]:
    """The dead letters of every consumer, oldest first; of one event where `event_id` says so."""
    rows = await connection.fetch(
        "SELECT consumer, event_id, source, position, events, cause, failed_at, replay_requested_at, discarded_at, "
        "discarded_by, discard_reason FROM event_log.dead_letter "
        "WHERE ($1::uuid IS NULL OR event_id = $1) AND ($2 OR discarded_at IS NULL) ORDER BY id",
        event_id,
        with_discarded,
    )
    return [_as_letter(row) for row in rows]


def _as_letter(row: asyncpg.Record) -> DeadLetter:
    fields = dict(row)
    try:
        events = read_events(fields.pop("events"))
    except ValueError:
        events = []
    return DeadLetter(
        **fields,
        types=sorted({event.type for event in events}),
        subject=events[0].subject if len(events) == 1 else None,
        events=events,
    )


async def request_retry(connection: Owner, *, consumer: str, event_id: UUID | None) -> int:
    """Have a consumer take one of its dead letters again, or all (`event_id` None); returns how many.

    The consumer does it in a transaction of its own, as soon as it runs: effect and end of the dead letter together.
    """
    done = await connection.fetch(
        "UPDATE event_log.dead_letter SET replay_requested_at = now() "
        "WHERE consumer = $1 AND ($2::uuid IS NULL OR event_id = $2) AND discarded_at IS NULL RETURNING id",
        consumer,
        event_id,
    )
    await connection.execute(f"NOTIFY {CHANNEL}")
    return len(done)


async def discard(connection: Owner, *, consumer: str, event_id: UUID, reason: str, by: str) -> bool:
    """Give a dead letter up for good; it is kept with the reason, and told of no more. False when there is none."""
    done = await connection.fetch(
        "UPDATE event_log.dead_letter SET discarded_at = now(), discarded_by = $3, discard_reason = $4, "
        "replay_requested_at = NULL WHERE consumer = $1 AND event_id = $2 AND discarded_at IS NULL RETURNING id",
        consumer,
        event_id,
        by,
        reason,
    )
    return bool(done)
