"""Handing a part of the log to a consumer again: a topic, or one payment of it, from an instant on.

The consumer does it beside its reading, in pieces. Handlers tell an event that they know by its id, and old from new by
its version: an effect that was had is had again only where it has been lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg
import msgspec

from payflow.contracts.topics import TOPIC_BY_NAME, Topic
from payflow.kernel.envelope import Event
from payflow.platform.eventlog.outbox import CHANNEL
from payflow.platform.postgres import Connection

Owner: TypeAlias = "asyncpg.Connection[Any]"


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """A replay that is asked for. `progress` is what the reader of the log keeps; None before the first piece.

    `asked_s_ago`: for how many seconds, by the database's clock.
    """

    id: int
    topic: str
    key: str | None
    from_time: datetime
    requested_at: datetime
    asked_s_ago: float
    progress: dict[str, Any] | None
    handed: int

    @property
    def of(self) -> Topic:
        """The topic's row of the catalogue."""
        return TOPIC_BY_NAME[self.topic]

    def wants(self, event: Event) -> bool:
        """Whether an event of the log is part of it."""
        topic = self.of
        return (
            event.type in topic.types
            and event.time >= self.from_time
            and self.key in (None, topic.key_of(subject=event.subject, data=event.data))
        )


class ReplayView(msgspec.Struct, frozen=True, kw_only=True):
    """A replay as an operator sees it. `handed`: how many events were handed over so far."""

    id: int
    consumer: str
    topic: str
    key: str | None
    from_time: datetime
    requested_at: datetime
    handed: int
    finished_at: datetime | None


# --- the consumer's side ----------------------------------------------------------------------------------------


async def next_replay(connection: Connection, *, consumer: str) -> Replay | None:
    """The oldest unfinished replay of a consumer, locked; None when there is none, or another process is at it."""
    row = await connection.fetchrow(
        "SELECT id, topic, key, from_time, requested_at, "
        "extract(epoch FROM clock_timestamp() - requested_at)::float8 AS asked_s_ago, progress, handed "
        "FROM event_log.replay "
        "WHERE consumer = $1 AND finished_at IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED",
        consumer,
    )
    return None if row is None else Replay(**dict(row))


async def save_progress(
    connection: Connection, *, id: int, progress: dict[str, Any], handed: int, is_finished: bool
) -> None:
    """Write how far a replay has come, in the transaction of the effects."""
    await connection.execute(
        "UPDATE event_log.replay SET progress = $2, handed = handed + $3, finished_at = CASE WHEN $4 THEN now() END "
        "WHERE id = $1",
        id,
        progress,
        handed,
        is_finished,
    )


# --- the operator's side, as the database's owner ----------------------------------------------------------------


async def request_replay(
    connection: Owner, *, consumer: str, topic: str, key: str | None, from_time: datetime
) -> ReplayView:
    """Have a consumer handed a topic's events from an instant on, or those of one key."""
    row = await connection.fetchrow(
        "INSERT INTO event_log.replay (consumer, topic, key, from_time) VALUES ($1, $2, $3, $4) "
        "RETURNING id, consumer, topic, key, from_time, requested_at, handed, finished_at",
        consumer,
        topic,
        key,
        from_time,
    )
    await connection.execute(f"NOTIFY {CHANNEL}")
    assert row is not None
    return ReplayView(**dict(row))


async def list_replays(connection: Owner, *, ids: Sequence[int] | None = None) -> list[ReplayView]:
    """Replays, newest first, at most a hundred; or those with these ids."""
    rows = await connection.fetch(
        "SELECT id, consumer, topic, key, from_time, requested_at, handed, finished_at FROM event_log.replay "
        "WHERE $1::bigint[] IS NULL OR id = ANY($1) ORDER BY id DESC LIMIT 100",
        ids,
    )
    return [ReplayView(**dict(row)) for row in rows]
