"""Which events a consumer has handled: written with the effect, so that an event that comes again has none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import Final
from uuid import UUID

from payflow.platform.postgres import Connection, Database

_FORGOTTEN_AT_ONCE: Final = 20_000
# In the order of UUIDs themselves, without a call for each comparison.
_number: Final = attrgetter("int")


async def take(connection: Connection, *, consumer: str, event_ids: Sequence[UUID]) -> set[UUID]:
    """Write down events that are about to be handled; those of them that had not been.

    Waits for another process that is handling one of them at this moment. In one order, or two could wait for each
    other.
    """
    rows = await connection.fetch(
        "INSERT INTO event_log.inbox (consumer, event_id) "
        "SELECT $1, id FROM unnest($2::uuid[]) AS t (id) ON CONFLICT DO NOTHING RETURNING event_id",
        consumer,
        sorted(set(event_ids), key=_number),
    )
    return {row["event_id"] for row in rows}


async def known(connection: Connection, *, consumer: str, event_ids: Sequence[UUID]) -> set[UUID]:
    """Those of the events that the consumer had from Kafka."""
    rows = await connection.fetch(
        "SELECT event_id FROM event_log.inbox WHERE consumer = $1 AND event_id = ANY($2::uuid[])", consumer, event_ids
    )
    return {row["event_id"] for row in rows}


async def forget_handled(*, database: Database, keep: timedelta) -> int:
    """Forget what was handled longer ago than `keep`; returns how many. No event may come again after so long."""
    before, total = datetime.now(UTC) - keep, 0
    while True:
        count = int(await database.fetchval("SELECT event_log.forget_handled($1, $2)", before, _FORGOTTEN_AT_ONCE))
        total += count
        if count < _FORGOTTEN_AT_ONCE:
            return total
