"""Runs the rules over one snapshot of the database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg
import msgspec

from payflow.platform.postgres import load_queries
from payflow.platform.servers import Connector
from payflow.run.invariants.catalog import RULES, Rule

EXAMPLES_MAX: Final = 5
_queries: Final = load_queries("payflow.run.invariants", "rules.sql")


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule came to. `waiting`: not true yet, and not yet overdue; `examples` name what is broken."""

    area: str
    words: str
    checked: int
    broken: int
    waiting: int
    examples: list[str]

    @property
    def is_kept(self) -> bool:
        """Whether the rule holds everywhere."""
        return self.broken == 0


async def check_database(
    url: str, *, quiet_within: timedelta, rules: Sequence[Rule] = RULES, tick: Callable[[Rule], None] = lambda _: None
) -> list[Finding]:
    """Check every rule in one read-only snapshot, as the database's owner; a system under load may go on meanwhile.

    What is under way for less than `quiet_within` is waiting, not broken. Raises asyncpg's errors and OSError.
    """
    connection = await Connector(url)(timeout=10)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return [await check_rule(connection, rule, quiet_within=quiet_within, tick=tick) for rule in rules]
    finally:
        await connection.close()


async def check_rule(
    connection: asyncpg.Connection[Any],
    rule: Rule,
    *,
    quiet_within: timedelta,
    tick: Callable[[Rule], None] = lambda _: None,
) -> Finding:
    """Check one rule on a connection that may read everything."""
    tick(rule)
    # No input is part of the text: the query is a file of this package.
    query = (
        "SELECT count(*) AS checked, count(*) FILTER (WHERE is_broken) AS broken, "  # noqa: S608 - see above
        "count(*) FILTER (WHERE is_waiting AND NOT is_broken) AS waiting, "
        f"coalesce((array_agg(what) FILTER (WHERE is_broken))[1:{EXAMPLES_MAX}], '{{}}') AS examples "
        f"FROM ({getattr(_queries, rule.query)}) AS looked_at"
    )
    # At the rule's own instant, not at the snapshot's: the snapshot is older, so nothing looks overdue too early.
    overdue_before = datetime.now(UTC) - quiet_within
    row = await connection.fetchrow(query, overdue_before, *rule.further, timeout=1800)
    assert row is not None
    return Finding(area=rule.area, words=rule.words, **dict(row))
