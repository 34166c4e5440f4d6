"""Read your own writes: when each customer, or operator, last changed something, as all gateways know it.

A list that a replica may answer carries that instant; a replica that has not come so far does not answer it. Kept in
Valkey for as long as it can matter: a replica that is further behind than that answers nobody. Where Valkey cannot
tell, the primary is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import structlog
from prometheus_client import Counter

from payflow.kernel.clock import Clock
from payflow.kernel.errors import Unavailable
from payflow.platform.replica import CLOCKS_DIFFER
from payflow.platform.rpc.breaker import Breaker
from payflow.platform.turns import Turns
from payflow.platform.valkey import Valkey, valkey_errors
from payflow.services.gateway.domain.sessions import Identity

log = structlog.get_logger(__name__)

LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
VALKEY_TIMEOUT_S: Final = 0.25
_BATCH_MAX: Final = 500
_failures: Final = Counter(
    "payflow_last_writes_lost_total", "Changes whose instant could not be kept: their maker's lists may lag behind."
)


def _instant(milliseconds: bytes | str | int) -> datetime:
    return datetime.fromtimestamp(int(milliseconds) / 1000, UTC)


class Freshness(Protocol):
    """Remembers who wrote when."""

    async def wrote(self, who: Sequence[str]) -> None:
        """These have just changed something; returns when all gateways know. Never raises."""
        ...

    async def fresh_as_of(self, who: str) -> datetime | None:
        """Which instant's commits a list for this one must show; None: all. Never raises."""
        ...


def names_of(identity: Identity) -> list[str]:
    """Under which names a change of this user's is kept: its own, and its customer's."""
    names = [f"user:{identity.username}"]
    return names if identity.customer_id is None else [*names, f"customer:{identity.customer_id}"]


class NoReplica:
    """There is nothing to be behind."""

    async def wrote(self, who: Sequence[str]) -> None:
        """Nothing to remember."""

    async def fresh_as_of(self, who: str) -> datetime | None:
        """The primary answers everything."""
        return None


class LastWrites:
    """Freshness in Valkey. `keep_s`: how old what a replica shows may be, at most. `valkey_timeout_s`: how long a
    request waits for Valkey, at most."""

    def __init__(
        self,
        *,
        valkey: Valkey,
        generation: str,
        clock: Clock,
        keep_s: float,
        valkey_timeout_s: float = VALKEY_TIMEOUT_S,
    ) -> None:
        self._valkey = valkey
        self._valkey_timeout_s = valkey_timeout_s
        self._clock = clock
        # Of the same hash tag as the guard's keys: one pipeline, one node.
        self._prefix = f"{{payflow:{generation}}}:wrote:"
        self._keep = timedelta(seconds=keep_s) + 2 * CLOCKS_DIFFER
        self._keep_ms = int(self._keep.total_seconds() * 1000)
        # A Valkey that does not answer holds up those who find that out, not everybody.
        self._breaker = Breaker()
        # Kept without an end: since when Valkey has all that was written. It is gone when Valkey has lost its memory.
        self._since = f"{{payflow:{generation}}}:wrote-since"
        self._has_lost_some = False
        self._turns: Turns[str, None] = Turns(self._write, batch_max=_BATCH_MAX)

    async def wrote(self, who: Sequence[str]) -> None:
        """See Freshness."""
        await self._turns.do(list(who))

    async def fresh_as_of(self, who: str) -> datetime | None:
        """See Freshness."""
        try:
            async with self._reached():
                known, since = await self._valkey.mget(self._prefix + who, self._since)
                if since is None or self._has_lost_some:
                    await self._begin_anew()
                    return None
        except (Unavailable, TimeoutError):
            return None
        if self._clock.now() - _instant(since) < self._keep:
            # What was written before that nobody knows, and a replica may still lack it.
            return None
        return LONG_AGO if known is None else _instant(known)

    async def _begin_anew(self) -> None:
        """From now on Valkey has all that is written."""
        await self._valkey.set(self._since, int(self._clock.now().timestamp() * 1000))
        self._has_lost_some = False

    async def _write(self, who: list[str]) -> list[None]:
        instant = int(self._clock.now().timestamp() * 1000) + 1
        try:
            async with self._reached():
                pipeline = self._valkey.pipeline(transaction=False)
                for name in dict.fromkeys(who):
                    pipeline.set(self._prefix + name, instant, px=self._keep_ms)
                await pipeline.execute()
        except (Unavailable, TimeoutError) as error:
            self._has_lost_some = True
            _failures.inc(len(who))
            log.warning("freshness.not_kept", writes=len(who), error=repr(error))
        return [None] * len(who)

    @asynccontextmanager
    async def _reached(self) -> AsyncIterator[None]:
        """Talk to Valkey inside the block. Raises Unavailable, at once while it was silent a moment ago."""
        loop = asyncio.get_running_loop()
        if not self._breaker.allows(loop.time()):
            raise Unavailable("The cache was silent a moment ago.")
        try:
            async with asyncio.timeout(self._valkey_timeout_s), valkey_errors():
                yield
        except (Unavailable, TimeoutError):
            self._breaker.failed(loop.time())
            raise
        self._breaker.succeeded()
