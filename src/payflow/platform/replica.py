"""Reads that may be a little old, sent to a replica while it is known how old, and to the primary otherwise.

Never what a decision hangs on: those ask the primary. A query says by `fresh_as_of` which instant's commits it must
see; without a word it is the primary's. How far the replica is follows from places in the write-ahead log: everything
that was committed before the primary was asked for its place is on a replica that has replayed up to there. So nothing
hangs on how busy the primary is, nor on the clocks of two servers. See ADR 0011.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from time import monotonic
from typing import Any, Final, Generic, Protocol, TypeVar

import asyncpg
import structlog
from prometheus_client import Counter

from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.measures import LiveGauge

log = structlog.get_logger(__name__)

LOOK_EVERY_S: Final = 0.25
# What two processes that both follow the primary's clock may differ by, with room to spare.
CLOCKS_DIFFER: Final = timedelta(seconds=1)
# A replica that says nothing for so long is not waited for: the primary answers.
REPLICA_TIMEOUT_S: Final = 1.0
_PRIMARY_PLACE: Final = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint"
# Of a server that is no replica, which it may have become since, nothing is known.
_REPLICA_PLACE: Final = (
    "SELECT CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0'::pg_lsn)::bigint END"
)
_reads: Final = Counter(
    "payflow_replica_reads_total",
    "Queries that may be a little old, by who answered: the replica, or the primary since the replica is not that far, "
    "knows no answer, or fails.",
    ["answered"],
)
_lag_s: Final = LiveGauge("payflow_replica_lag_seconds", "How old what the replica shows may be, at most.")

S_co = TypeVar("S_co", covariant=True)
A = TypeVar("A")


class MayBeOld(Protocol):
    """A query that need not see the newest."""

    @property
    def fresh_as_of(self) -> datetime | None:
        """Commits up to this instant must be seen; None: all."""
        ...


Q = TypeVar("Q", bound=MayBeOld)


class Server(Protocol):
    """What is asked of either database."""

    async def fetchval(self, query: str, /) -> Any:
        """The one value of a query. Raises PayflowError, asyncpg's errors."""
        ...

    async def renew(self) -> None:
        """Use none of the present connections again."""
        ...


class ReplicaWatch:
    """Knows up to which instant the replica has everything."""

    def __init__(self, *, primary: Server, replica: Server, clock: Clock, lag_max_s: float) -> None:
        self._primary = primary
        self._replica = replica
        self._clock = clock
        self._lag_max = timedelta(seconds=lag_max_s)
        # (an instant, the place in the log that the primary had reached by then), oldest first.
        self._places: deque[tuple[datetime, int]] = deque()
        self._has_all_until: datetime | None = None
        self._replayed = 0
        # When the look began that is not answered yet.
        self._asked_at: float | None = None
        self._is_told = False
        _lag_s.watch(self, lambda one: one.lag_s)

    @property
    def lag_s(self) -> float:
        """How old what the replica shows may be; infinite where it is not known."""
        if self._has_all_until is None:
            return float("inf")
        return (self._clock.now() - self._has_all_until).total_seconds()

    def may_answer(self, fresh_as_of: datetime | None) -> bool:
        """Whether the replica shows everything that a query must see, and is not too old for anybody."""
        if fresh_as_of is None or self._has_all_until is None:
            return False
        if self._asked_at is not None and monotonic() - self._asked_at > 2 * LOOK_EVERY_S:
            return False  # It is silent at this moment.
        if self._clock.now() - self._has_all_until > self._lag_max:
            return False
        return self._has_all_until >= fresh_as_of + CLOCKS_DIFFER

    def distrust(self) -> None:
        """It has failed: nobody is sent there until it was looked at again."""
        self._has_all_until = None

    async def look(self) -> None:
        """Compare the places of both once."""
        try:
            # The instant first: what is committed before it is below the place.
            instant = self._clock.now()
            self._places.append((instant, int(await self._primary.fetchval(_PRIMARY_PLACE))))
        except (PayflowError, asyncpg.PostgresError) as error:
            log.debug("replica.primary_silent", error=repr(error))
        self._asked_at = monotonic()
        try:
            async with asyncio.timeout(REPLICA_TIMEOUT_S):
                replayed = await self._replica.fetchval(_REPLICA_PLACE)
        except (PayflowError, asyncpg.PostgresError, TimeoutError) as error:
            self.distrust()
            self._tell(error)
            return
        finally:
            self._asked_at = None
        if replayed is None:
            # It was promoted, which closes no connection: the next ones are made to whoever is the replica now.
            self.distrust()
            await self._replica.renew()
            return
        if replayed < self._replayed:
            # Another one answers, which is not as far as the one before: its connections may be among ours already.
            self.distrust()
        self._replayed = replayed
        self._is_told = False
        while self._places and self._places[0][1] <= replayed:
            self._has_all_until = self._places.popleft()[0]
        # What it has not replayed by then is of no use: it is too far behind for anybody.
        while self._places and self._clock.now() - self._places[0][0] > 2 * self._lag_max:
            self._places.popleft()

    async def look_always(self) -> None:
        """The background duty."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    def _tell(self, error: Exception) -> None:
        if not self._is_told:
            log.warning("replica.gone", error=repr(error))
        self._is_told = True


class Reads(Generic[S_co]):
    """A service's store over the primary, and over the replica if there is one: lists of queries go to both, each query
    to the one that may answer it."""

    def __init__(self, primary: S_co, *, replica: S_co | None = None, watch: ReplicaWatch | None = None) -> None:
        self._primary = primary
        self._replica = replica
        self._watch = watch

    async def answer(
        self, queries: Sequence[Q], work: Callable[[Sequence[Q], S_co], Awaitable[list[A | PayflowError]]]
    ) -> list[A | PayflowError]:
        """The answers of `work(queries, store)`, in order. Whatever the replica cannot answer the primary is asked."""
        if self._replica is None or self._watch is None:
            return await work(queries, self._primary)
        answers: dict[int, A | PayflowError] = {}
        chosen = [index for index, query in enumerate(queries) if self._watch.may_answer(query.fresh_as_of)]
        _reads.labels("primary_behind").inc(sum(query.fresh_as_of is not None for query in queries) - len(chosen))
        if chosen:
            answers = await self._ask_replica(queries, chosen, work)
        left = [index for index in range(len(queries)) if index not in answers]
        if left:
            answers |= zip(left, await work([queries[index] for index in left], self._primary), strict=True)
        return [answers[index] for index in range(len(queries))]

    async def _ask_replica(
        self,
        queries: Sequence[Q],
        chosen: Sequence[int],
        work: Callable[[Sequence[Q], S_co], Awaitable[list[A | PayflowError]]],
    ) -> dict[int, A | PayflowError]:
        """What the replica answers; without what it does not know, which may just not have come there yet."""
        assert self._watch is not None
        assert self._replica is not None
        try:
            found = await work([queries[index] for index in chosen], self._replica)
        except (Unavailable, asyncpg.PostgresError, TimeoutError) as error:
            log.warning("replica.failed", error=repr(error))
            self._watch.distrust()
            _reads.labels("primary_failed").inc(len(chosen))
            return {}
        answers: dict[int, A | PayflowError] = {
            index: answer for index, answer in zip(chosen, found, strict=True) if not isinstance(answer, PayflowError)
        }
        _reads.labels("replica").inc(len(answers))
        _reads.labels("primary_unknown").inc(len(chosen) - len(answers))
        return answers
