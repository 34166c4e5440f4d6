"""One batch at a time: what is asked for meanwhile goes together in the next one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Turns(Generic[Q, A]):
    """Runs `work`, which answers a list of equal length, never twice at once: batches would collide."""

    def __init__(self, work: Callable[[list[Q]], Awaitable[list[A]]], *, batch_max: int) -> None:
        self._work = work
        self._batch_max = batch_max
        self._waiting: deque[tuple[list[Q], asyncio.Future[list[A]]]] = deque()
        self._worker: asyncio.Task[None] | None = None

    async def do(self, items: list[Q]) -> list[A]:
        """The answers to these items, in order; raises what the work raised. Lists are never torn apart."""
        answer: asyncio.Future[list[A]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                await self._one_batch()
        finally:
            self._worker = None

    async def _one_batch(self) -> None:
        batch = [self._waiting.popleft()]
        size = len(batch[0][0])
        while self._waiting and size + len(self._waiting[0][0]) <= self._batch_max:
            batch.append(self._waiting.popleft())
            size += len(batch[-1][0])
        try:
            answers = await self._work([item for items, _ in batch for item in items])
        except BaseException as error:
            for _, answer in batch:
                if not answer.done():
                    answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
            return
        start = 0
        for items, answer in batch:
            if not answer.done():
                answer.set_result(answers[start : start + len(items)])
            start += len(items)
