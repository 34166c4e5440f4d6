"""What does not go on by itself: each kind with what to do about it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from payflow.platform.postgres import load_queries
from payflow.platform.servers import Connector

_queries: Final = load_queries("payflow.run.invariants", "stuck.sql")
# What a person can do; every query in stuck.sql has its line.
TO_DO: Final = {
    "payments_past_their_deadline": "confirm should have gone on with it: see `payflow logs confirm`",
    "scheduled_payments_past_their_day": "see whether risk, ofac, kyc and account answer: `payflow status`",
    "bulk_orders_past_their_deadline": "confirm should have gone on with it: see `payflow logs confirm`",
    "returns_past_their_deadline": "confirm should have gone on with it: see `payflow logs confirm`",
    "returns_that_wait": "decide it: POST /returns/{id}/approve or /decline, by somebody else",
    "payments_without_a_word": "ask the bank, then enquire again: POST /partner-bank/instructions/{id}/enquiry",
    "reviews_that_wait": "decide it: POST /reviews/{id}/decision, by compliance",
    "decisions_not_delivered": "ofac delivers it as soon as confirm answers: see `payflow logs ofac`",
    "incoming_past_their_deadline": (
        "PENDING: see `payflow logs partner-bank`; HELD_IN_SUSPENSE: decide its review, POST /reviews/{id}/decision; "
        "RETURNING: ask the bank to take its money back; if it has it by other means, "
        "POST /partner-bank/instructions/{id}/taken-back"
    ),
    "money_taken_back_that_waits": (
        "confirm it as another operator: POST /partner-bank/instructions/{id}/taken-back with the same reference; "
        "or withdraw it: DELETE there"
    ),
    "decided_and_still_in_suspense": "partner-bank should have moved it: see `payflow logs partner-bank`",
    "events_set_aside": "look at the cause, then `payflow events dlq retry` or `discard`",
    "events_not_published": "see whether Kafka can be reached, and that audit or notification runs",
    "events_not_numbered": "start audit, notification or risk",
    "messages_not_delivered": "the customer was not told; see the reason",
}
LIMIT_PER_KIND: Final = 100


class Stuck(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that does not go on: since when, why, and what to do."""

    kind: str
    what: str
    since: datetime
    why: str
    to_do: str


async def find_stuck(url: str, *, overdue_after: timedelta) -> list[Stuck]:
    """Everything stuck, oldest first within each kind. `overdue_after`: how long past its deadline something may be,
    which a restart or a busy moment explains. Raises asyncpg's errors and OSError."""
    connection = await Connector(url)(timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return await stuck_on(connection, overdue_after=overdue_after)
    finally:
        await connection.close()


async def stuck_on(connection: asyncpg.Connection[Any], *, overdue_after: timedelta) -> list[Stuck]:
    """As `find_stuck`, on a connection that may read everything."""
    before = datetime.now(UTC) - overdue_after
    found = []
    for kind, to_do in TO_DO.items():
        # The query is a file of this package; no input is part of it.
        query = f"{getattr(_queries, kind)}\n ORDER BY since LIMIT {LIMIT_PER_KIND}"
        rows = await connection.fetch(query, before, timeout=60)
        found += [Stuck(kind=kind, to_do=to_do, **dict(row)) for row in rows]
    return found
