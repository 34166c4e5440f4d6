"""Connections of a pool that stay in hand between two uses.

asyncpg's pool makes a task and two timers whenever a connection comes back, which costs more than most statements. Who
comes next, under load at once, gets the same connection as it is.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, Final, TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.pool.PoolConnectionProxy[asyncpg.Record]"

# Then those that are idle go back to the pool, which closes what has served long enough or is not needed any more.
SWEEP_S: Final = 30.0
_GONE: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)


class KeptConnections:
    """Takes connections out of a pool, whose size bounds them, and keeps those that come back whole."""

    def __init__(self, pool: asyncpg.Pool[Any], *, sweep_s: float = SWEEP_S) -> None:
        self._pool = pool
        self._sweep_s = sweep_s
        self._idle: list[Connection] = []
        self.waiting = 0  # those who wait for the pool's next connection
        self._sweep: asyncio.TimerHandle | None = None
        self._sweeping: asyncio.Task[None] | None = None
        # One that was taken before the last renewal is not kept; nor is any, once all are being closed.
        self.renewals = 0
        self._is_closing = False

    @property
    def idle(self) -> int:
        """Open connections that nobody uses."""
        return int(self._pool.get_idle_size()) + sum(map(_is_open, self._idle))

    @property
    def used(self) -> int:
        """Open connections in use."""
        return int(self._pool.get_size()) - self.idle

    @property
    def size_max(self) -> int:
        """As many connections as there may be."""
        return int(self._pool.get_max_size())

    async def take(self, *, timeout_s: float) -> Connection:
        """A connection: a kept one at once, else one of the pool. Raises what the pool's `acquire` does."""
        while self._idle:
            # The one used last: the server's process is warm, and those not needed grow old.
            connection = self._idle.pop()
            if _is_open(connection):
                return connection
            with suppress(*_GONE):
                connection.terminate()  # lost while it was idle; its place in the pool is free then
        self.waiting += 1
        try:
            return await self._pool.acquire(timeout=timeout_s)
        finally:
            self.waiting -= 1

    async def give_back(self, connection: Connection, *, is_whole: bool, renewals: int) -> None:
        """Give a connection back. `is_whole`: its last use ended without an error; `renewals`: as it was then."""
        if is_whole and not self.waiting and not self._is_closing and renewals == self.renewals:
            self._idle.append(connection)
            if self._sweep is None:
                self._sweep = asyncio.get_running_loop().call_later(self._sweep_s, self._begin_sweep)
            return
        # A connection that is lost right now gives itself back, and the pool then has nothing left to release; one
        # whose server is silent is not taken back in time. Either way, what ended its use is what counts. The pool
        # shields it: a cancelled use case gives its connection back, too.
        with suppress(*_GONE):
            await self._pool.release(connection)

    async def renew(self) -> None:
        """Use none of the present connections again."""
        self.renewals += 1
        await self._pool.expire_connections()
        await self._give_idle_back()

    async def close(self, *, timeout_s: float) -> None:
        """Close every connection, waiting for those in use at most so long."""
        if self._sweep is not None:
            self._sweep.cancel()
        self._is_closing = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._give_idle_back()
                await self._pool.close()
        except TimeoutError:
            self._pool.terminate()
        except BaseException:
            self._pool.terminate()
            raise

    def _begin_sweep(self) -> None:
        self._sweep = None
        self._sweeping = asyncio.get_running_loop().create_task(self._give_idle_back())

    async def _give_idle_back(self) -> None:
        # One by one, those idle longest first: whoever is cancelled here leaves the others where they are.
        for _ in range(len(self._idle)):
            if self._idle:
                with suppress(*_GONE):
                    await self._pool.release(self._idle.pop(0))


def _is_open(connection: Connection) -> bool:
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False  # it has gone back to the pool by itself
