"""How far a consumer is behind, in time: the age of the oldest event that it has not read, and of any not yet sent."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Final

from prometheus_client import Gauge

from payflow.contracts.topics import TOPICS
from payflow.kernel.errors import PayflowError
from payflow.platform.postgres import Database

_lag: Final = Gauge(
    "payflow_event_lag_seconds",
    "Age of the oldest event that is wanted and was not read yet; 0: none.",
    ["consumer"],
)
_unsent: Final = Gauge(
    "payflow_event_oldest_unsent_seconds", "Age of the oldest event that stands in no reader's sight yet; 0: none."
)
_ASK: Final = """
SELECT coalesce(extract(epoch FROM clock_timestamp() - (
           SELECT min(created_at) FROM event_log.batch WHERE position IS NULL)), 0)::float8 AS unsent,
       coalesce(extract(epoch FROM clock_timestamp() - (
           SELECT created_at FROM event_log.batch
            WHERE position > coalesce((SELECT position FROM event_log.consumer WHERE name = $1), 0) AND types && $2
            ORDER BY position LIMIT 1)), 0)::float8 AS unread
"""


def wanted_types(topics: Sequence[str], types: Collection[str] | None) -> list[str]:
    """The event types of these topics, or those of them that are named."""
    of_topics = {type_ for topic in TOPICS if topic.name in topics for type_ in topic.types}
    return sorted(of_topics if types is None else of_topics & set(types))


class EventLag:
    """Measures one consumer of the PostgreSQL log."""

    def __init__(self, *, database: Database, consumer: str, types: Sequence[str]) -> None:
        self._database = database
        self._consumer = consumer
        self._types = list(types)
        self._lag = _lag.labels(consumer)

    async def measure(self) -> None:
        """Read both ages once. What cannot be read keeps its last value; that the database is away, others tell."""
        with suppress(PayflowError):
            row = await self._database.fetchrow(_ASK, self._consumer, self._types)
            if row is not None:
                _unsent.set(max(0.0, row["unsent"]))
                self._lag.set(max(0.0, row["unread"]))
