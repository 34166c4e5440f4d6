"""The way from a process to its database: statements are delayed, fail before they begin, or end unheard."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.platform.postgres import ConcurrencyConflict
from tests.simulation.nodes import Life


class Door(Protocol):
    """What an in-memory store asks before and after each statement."""

    async def enter(self) -> None:
        """On the way to the database. Raises Unavailable: nothing happened."""
        ...

    async def leave(self) -> None:
        """On the way back."""
        ...

    def is_lost(self) -> bool:
        """Whether a write that has arrived is not made, and nobody is told."""
        ...

    def check_told(self) -> None:
        """After a write was made. Raises UnknownOutcome when the word of it is lost."""
        ...

    def check_conflict(self) -> None:
        """Raises ConcurrencyConflict: rolled back, may be repeated at once."""
        ...

    def promise(self) -> asyncio.Future[Any]:
        """Something to wait for: a row lock."""
        ...

    def keep(self, future: asyncio.Future[Any]) -> None:
        """What was waited for is there."""
        ...

    def note(self, text: str, items: Sequence[Any]) -> None:
        """Record what was written."""
        ...


class OpenDoor:
    """No faults, on whatever loop is running."""

    async def enter(self) -> None:
        await asyncio.sleep(0)

    async def leave(self) -> None:
        return None

    def is_lost(self) -> bool:
        return False

    def check_told(self) -> None:
        return None

    def check_conflict(self) -> None:
        return None

    def promise(self) -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def keep(self, future: asyncio.Future[Any]) -> None:
        if not future.done():
            future.set_result(None)

    def note(self, text: str, items: Sequence[Any]) -> None:
        return None


class SimulatedDoor:
    """The weather's faults, and the death of the process that stands in it."""

    def __init__(self, life: Life) -> None:
        self.life, self._world = life, life.world

    async def enter(self) -> None:
        await self.life.hop()
        if self._world.happens("store_unavailable"):
            raise Unavailable("the database cannot be reached")

    async def leave(self) -> None:
        await self.life.hop()

    def is_lost(self) -> bool:
        return self._world.happens("commit_lost")

    def check_told(self) -> None:
        if self._world.happens("commit_untold"):
            raise UnknownOutcome("the connection was lost during a commit")

    def check_conflict(self) -> None:
        if self._world.happens("conflict"):
            raise ConcurrencyConflict("deadlock")

    def promise(self) -> asyncio.Future[Any]:
        return self.life.promise()

    def keep(self, future: asyncio.Future[Any]) -> None:
        self.life.keep(future, None)

    def note(self, text: str, items: Sequence[Any]) -> None:
        self._world.note(f"{self.life.node.name} {text}", items)
