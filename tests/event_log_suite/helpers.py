"""A handler that fails, what is waited for, and the command line."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import Sequence

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.dead_letters import DeadLetter, list_dead_letters
from payflow.platform.eventlog.replays import ReplayView, list_replays
from payflow.platform.postgres import Connection
from tests.builders_event_log import Log, until


class Picky:
    """A handler that cannot stand some subjects until it is repaired."""

    def __init__(self, log: Log, *subjects: str, error: Exception | None = None) -> None:
        self._log = log
        self._error = error or ValueError("not this one")
        self.refused = set(subjects)

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await self._log.write_effects(connection, events)
        if any(event.subject in self.refused for event in events):
            raise self._error


async def until_letters(log: Log, count: int) -> list[DeadLetter]:
    """Wait for so many dead letters."""

    async def are_there() -> bool:
        return len(await list_dead_letters(log.owner)) >= count

    await until(are_there, seconds=log.patience_s)
    return await list_dead_letters(log.owner)


async def until_retried(log: Log, *, left: int) -> None:
    """Wait until nothing is asked to be tried again any more, and so many dead letters are left."""

    async def are_done() -> bool:
        letters = await list_dead_letters(log.owner)
        return len(letters) == left and all(letter.replay_requested_at is None for letter in letters)

    await until(are_done, seconds=log.patience_s)


async def until_replayed(log: Log, replay: ReplayView) -> ReplayView:
    """Wait until a replay is finished."""

    async def is_finished() -> bool:
        (found,) = await list_replays(log.owner, ids=[replay.id])
        return found.finished_at is not None

    await until(is_finished, seconds=log.patience_s)
    (found,) = await list_replays(log.owner, ids=[replay.id])
    return found


async def payflow_events(log: Log, *arguments: str) -> tuple[int | None, str, str]:
    """Run `payflow events`: its exit code, its output, and what it said of errors."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "payflow.run.main", "events", *arguments),
        env={**os.environ, **log.settings},
        stdout=PIPE,
        stderr=PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()
