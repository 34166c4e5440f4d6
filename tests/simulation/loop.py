"""An event loop whose time is virtual and whose order is chosen by a seed: the same seed runs the same steps."""

from __future__ import annotations

import asyncio
import heapq
from asyncio import events
from collections.abc import Callable, Coroutine
from contextvars import Context
from random import Random
from typing import Any, TypeVar

T = TypeVar("T")


class SimulationStuck(Exception):
    """Everybody waits and nothing is to come: a deadlock."""


class SimulatedLoop(asyncio.AbstractEventLoop):
    """Runs coroutines without threads, sockets or waiting.

    Of all that could run now, `chance` picks what runs next. Where nothing can, time jumps to the next timer.
    """

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        # What can run now: a callback, its arguments, and the context it runs in, if any.
        self._ready: list[tuple[Callable[..., object], tuple[Any, ...], Context | None]] = []
        self._timers: list[tuple[float, int, Callable[..., object], tuple[Any, ...]]] = []
        self._timer_count = 0
        self.now_s = 0.0
        self._tasks: list[asyncio.Task[Any]] = []
        self.unhandled: list[str] = []
        self.steps = 0

    def time(self) -> float:
        return self.now_s

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Context | None = None) -> None:
        """Nobody takes back what is to run now: there is no handle, and that makes a step half as dear."""
        self._ready.append((callback, args, context))

    def call_later(
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now_s + delay, callback, *args, context=context)

    def call_at(
        self, when: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self.after(when - self.now_s, _run, handle)
        return handle

    def after(self, delay: float, callback: Callable[..., object], *args: Any) -> None:
        """As `call_later`, and cannot be taken back."""
        self._timer_count += 1
        heapq.heappush(self._timers, (self.now_s + delay, self._timer_count, callback, args))

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(
        self, coro: Coroutine[Any, Any, T], *, name: str | None = None, context: Context | None = None
    ) -> asyncio.Task[T]:
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        if len(self._tasks) > 1000:
            self._tasks = [known for known in self._tasks if not known.done()]
        return task

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return False

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """A cancelled timer stays in the heap until its time comes, and does nothing then."""

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self.unhandled.append(f"{context.get('message')}: {context.get('exception')!r}")

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, then end whatever still runs. Raises SimulationStuck, or what `main` raises."""
        events._set_running_loop(self)
        try:
            task = self.create_task(main)
            try:
                while not task.done():
                    self._step()
                return task.result()
            finally:
                self._end_all()
        finally:
            events._set_running_loop(None)

    def _step(self) -> None:
        self.steps += 1
        ready = self._ready
        if not ready:
            if not self._timers:
                raise SimulationStuck("everybody waits, and nothing is to come")
            when, _, callback, args = heapq.heappop(self._timers)
            if when > self.now_s:
                self.now_s = when
            callback(*args)
            return
        last = len(ready) - 1
        if last > 0:
            index = int(self._chance.random() * (last + 1))
            ready[index], ready[last] = ready[last], ready[index]
        callback, args, context = ready.pop()
        if context is None:
            callback(*args)
        else:
            context.run(callback, *args)

    def _end_all(self) -> None:
        """Nothing of this run may live on: tasks that still wait are cancelled, in the order of their making."""
        for _ in range(100):
            waiting = [task for task in self._tasks if not task.done()]
            if not waiting:
                break
            for task in waiting:
                task.cancel()
            while self._ready:
                self._step()
        self._tasks.clear()
        self._timers.clear()


def _run(handle: asyncio.TimerHandle) -> None:
    if not handle._cancelled:
        handle._run()
