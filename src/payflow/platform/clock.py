"""The clocks behind the kernel's Clock: the machine's, and the database's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Gauge

from payflow.kernel.errors import PayflowError

log = structlog.get_logger(__name__)

ASK_EVERY_S: Final = 5.0
# An answer that took longer says too little about when the clock was read.
SLOW_ANSWER_S: Final = 0.5
WORTH_TELLING: Final = timedelta(seconds=1)
_difference: Final = Gauge("payflow_clock_difference_seconds", "This machine's clock minus the database's.")


class SystemClock:
    """The present instant of this machine."""

    def now(self) -> datetime:
        """The present instant, timezone-aware UTC."""
        return datetime.now(UTC)


class SharedClock:
    """The database's clock, so that all processes of a service agree on when a lease ends.

    A process whose machine is an hour ahead would keep its payments from everybody else for that hour. Between answers
    of the database the time goes on by this machine's monotonic clock, which nobody sets; until the first answer it is
    the machine's own time.
    """

    def __init__(self) -> None:
        self._database_minus_monotonic: timedelta | None = None
        self._is_told = False

    def now(self) -> datetime:
        """The present instant, timezone-aware UTC."""
        if self._database_minus_monotonic is None:
            return datetime.now(UTC)
        return _EPOCH + self._database_minus_monotonic + timedelta(seconds=time.monotonic())

    async def ask(self, database_now: Callable[[], Awaitable[datetime]]) -> None:
        """Read the database's clock once. Raises what `database_now` raises."""
        asked_at = time.monotonic()
        instant = await database_now()
        took_s = time.monotonic() - asked_at
        if took_s > SLOW_ANSWER_S and self._database_minus_monotonic is not None:
            return
        self._database_minus_monotonic = instant - _EPOCH - timedelta(seconds=asked_at + took_s / 2)
        difference = datetime.now(UTC) - self.now()
        _difference.set(difference.total_seconds())
        if abs(difference) > WORTH_TELLING and not self._is_told:
            log.warning("clock.differs", machine_minus_database_s=round(difference.total_seconds(), 3))
        self._is_told = abs(difference) > WORTH_TELLING

    async def follow(self, database_now: Callable[[], Awaitable[datetime]]) -> None:
        """Read the database's clock again and again, until cancelled."""
        while True:
            with suppress(PayflowError):
                await self.ask(database_now)
            await asyncio.sleep(ASK_EVERY_S)


_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
