"""argon2id in a small pool of threads: slow on purpose, off the event loop, and never an unbounded queue."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHash

from payflow.kernel.errors import Overloaded

T = TypeVar("T")

# OWASP's recommendation of equal strength with the least memory: 20 ms a hash here, 19 MiB a thread.
MEMORY_KIB: Final = 19_456
PASSES: Final = 2
LANES: Final = 1
THREADS: Final = 2
# Half a second of work: whoever comes later would wait longer than is worth it.
QUEUE_MAX: Final = 48
# The hash of a random text that was thrown away, with the parameters above: verified for users who do not exist, so
# that they take as long as a wrong password.
NOBODY: Final = "$argon2id$v=19$m=19456,t=2,p=1$aFx+J51LxIU33pRHLDdPJg$oK/TViEJgF8jRHGaFoLPg19V30h3VZYv90FnYvW5P0U"


class ArgonPasswords:
    """Hashes and verifies (see ports.Passwords)."""

    def __init__(self, *, threads: int = THREADS, queue_max: int = QUEUE_MAX) -> None:
        self._hasher = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES, type=Type.ID)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="argon2")
        self._places = threads + queue_max
        self._taken = 0

    async def hash(self, password: str) -> str:
        return await self._run(lambda: self._hasher.hash(password))

    async def verify(self, *, password: str, password_hash: str | None) -> bool:
        fits = await self._run(lambda: self._fits(password, password_hash or NOBODY))
        return fits and password_hash is not None

    def _fits(self, password: str, password_hash: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (Argon2Error, InvalidHash):
            return False

    async def _run(self, work: Callable[[], T]) -> T:
        if self._taken >= self._places:
            raise Overloaded("Too many people are signing in.")
        self._taken += 1
        running = asyncio.get_running_loop().run_in_executor(self._pool, work)
        # The place is given back when the thread is free again, not when the caller has gone.
        running.add_done_callback(self._give_back)
        return await asyncio.shield(running)

    def _give_back(self, _done: object) -> None:
        self._taken -= 1

    async def close(self) -> None:
        """End the threads; what waits is dropped."""
        self._pool.shutdown(wait=False, cancel_futures=True)
