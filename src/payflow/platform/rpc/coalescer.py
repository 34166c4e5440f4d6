"""Gathers what arrives while calls are under way and sends it as the next call.

No delay when idle: the first item goes at once. The busier the link, the larger the batches and the cheaper each
item (see Pace). Both the calls in flight and the items waiting are bounded.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import copy_context
from typing import Final, Generic, TypeVar

from payflow.kernel.errors import DeadlineExceeded, Overloaded, UnknownOutcome
from payflow.platform.rpc.pace import Pace
from payflow.platform.tracing.calls import context_of_batch
from payflow.platform.tracing.tracer import installed

# At most so many turns of the event loop (tens of microseconds each) are spent on gathering one call.
TURNS_MAX: Final = 32

Q = TypeVar("Q")
A = TypeVar("A")

Send = Callable[[list[Q], float], Awaitable[list[A]]]


class _Asked(Generic[Q, A]):
    """Items of one caller, on their way."""

    __slots__ = ("answer", "asked_at", "context", "deadline", "is_sent", "items")

    def __init__(self, items: list[Q], deadline: float, answer: asyncio.Future[list[A]], asked_at: float) -> None:
        self.items = items
        self.asked_at = asked_at
        self.deadline = deadline
        self.answer = answer
        self.is_sent = False
        self.context = copy_context()


class Coalescer(Generic[Q, A]):
    """Turns many small asks into few large calls of `send(items, deadline)`, which answers a list of equal length."""

    def __init__(self, send: Send[Q, A], *, calls_in_flight: int, batch_max: int, queue_max: int) -> None:
        self._send = send
        self._calls_max = calls_in_flight
        self._batch_max = batch_max
        self._queue_max = queue_max
        self._queue: deque[_Asked[Q, A]] = deque()
        self._waiting = 0
        self._calls: set[asyncio.Task[None]] = set()
        self._pace = Pace()
        self._look_again: asyncio.TimerHandle | None = None
        self._is_gathering = False
        self._turns = 0
        self._seen = 0
        # Who waits for an answer, and one timer for all their deadlines: a timer each would cost as much as the ask.
        self._asking: set[_Asked[Q, A]] = set()
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._deadline_at = 0.0

    @property
    def waiting(self) -> int:
        """Items that no call has taken yet."""
        return self._waiting

    @property
    def in_flight(self) -> int:
        """Calls under way."""
        return len(self._calls)

    async def ask(self, items: list[Q], *, deadline: float) -> list[A]:
        """Send items with their neighbours and return their answers, in order.

        `deadline` is an instant on the event loop's clock. Raises Overloaded at once when the queue is full,
        DeadlineExceeded when the deadline passed before the items were sent, UnknownOutcome when it passed after, and
        ValueError for more items than one call may carry: each call has an outcome of its own.
        """
        if not items:
            return []
        if len(items) > self._batch_max:
            raise ValueError(f"{len(items)} items, but a call carries {self._batch_max}")
        if self._waiting + len(items) > self._queue_max:
            raise Overloaded("Too much work is waiting.")
        loop = asyncio.get_running_loop()
        if deadline <= loop.time():
            raise DeadlineExceeded("The deadline had passed before the call was asked for.")
        asked: _Asked[Q, A] = _Asked(items, deadline, loop.create_future(), loop.time())
        self._queue.append(asked)
        self._waiting += len(items)
        self._pace.arrived(asked.asked_at)
        self._gather_soon()
        self._asking.add(asked)
        if self._deadline_timer is None or deadline < self._deadline_at:
            self._look_at_deadlines(loop, deadline)
        try:
            return await asked.answer
        finally:
            self._asking.discard(asked)
            if not asked.is_sent:
                self._forget(asked)

    def _look_at_deadlines(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._deadline_at = at
        self._deadline_timer = loop.call_at(at, self._end_overdue, loop)

    def _end_overdue(self, loop: asyncio.AbstractEventLoop) -> None:
        """Tell those whose deadline has passed, and look again when the next one's does."""
        self._deadline_timer = None
        now = loop.time()
        for asked in self._asking:
            if asked.deadline <= now and not asked.answer.done():
                asked.answer.set_exception(
                    UnknownOutcome("No answer came in time.")
                    if asked.is_sent
                    else DeadlineExceeded("The deadline passed before the call was sent.")
                )
        waiting = [asked.deadline for asked in self._asking if not asked.answer.done()]
        if waiting:
            self._look_at_deadlines(loop, min(waiting))

    def _forget(self, asked: _Asked[Q, A]) -> None:
        """Take out what nobody waits for any more, so that it neither is sent nor keeps others out."""
        with suppress(ValueError):
            self._queue.remove(asked)
            self._waiting -= len(asked.items)

    def _gather_soon(self) -> None:
        if not self._is_gathering and len(self._calls) < self._calls_max:
            self._is_gathering, self._turns, self._seen = True, 0, 0
            asyncio.get_running_loop().call_soon(self._gather)

    def _gather(self) -> None:
        """Let more come in for as long as each turn of the loop brings some, then send if it is time to."""
        has_grown = self._waiting > self._seen
        self._seen = self._waiting
        self._turns += 1
        if has_grown and self._turns < TURNS_MAX and self._waiting < self._batch_max:
            asyncio.get_running_loop().call_soon(self._gather)
            return
        self._is_gathering = False
        self._send_if_time()

    def _send_if_time(self) -> None:
        """Send now, or look again when the patience with the oldest waiting ask is over."""
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None
        if not self._queue or len(self._calls) >= self._calls_max:
            return
        loop = asyncio.get_running_loop()
        wait_s = self._pace.wait_s(
            now=loop.time(), waiting=len(self._queue), oldest=self._queue[0].asked_at, is_busy=bool(self._calls)
        )
        if wait_s <= 0 or self._waiting >= self._batch_max:
            self._send_next(loop)
        else:
            self._look_again = loop.call_later(wait_s, self._send_if_time)

    def _send_next(self, loop: asyncio.AbstractEventLoop) -> None:
        batch = self._take_batch()
        if not batch:
            return
        # In an asker's context: the trace that goes on is one of those in the batch, not that of whoever happened to
        # wake the pump; one that is recorded, where there is one.
        context = batch[0].context
        if len(batch) > 1 and installed() is not None:
            context = context_of_batch([asked.context for asked in batch])
        task = loop.create_task(self._call(batch), context=context)
        self._calls.add(task)
        task.add_done_callback(self._call_ended)
        if self._queue:
            self._gather_soon()

    def _call_ended(self, task: asyncio.Task[None]) -> None:
        self._calls.discard(task)
        if self._queue:
            self._gather_soon()

    def _take_batch(self) -> list[_Asked[Q, A]]:
        batch: list[_Asked[Q, A]] = []
        size = 0
        while self._queue and size + len(self._queue[0].items) <= self._batch_max:
            asked = self._queue.popleft()
            self._waiting -= len(asked.items)
            if asked.answer.done():
                continue  # Nobody waits for it any more, and nothing was sent.
            asked.is_sent = True
            batch.append(asked)
            size += len(asked.items)
        return batch

    async def _call(self, batch: list[_Asked[Q, A]]) -> None:
        loop = asyncio.get_running_loop()
        items = [item for asked in batch for item in asked.items]
        sent_at = loop.time()
        try:
            answers = await self._send(items, max(asked.deadline for asked in batch))
        except BaseException as error:
            self._pace.ended(now=loop.time(), sent_at=sent_at, asks=len(batch), waiting=len(self._queue))
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(error if isinstance(error, Exception) else UnknownOutcome(str(error)))
            if not isinstance(error, Exception):
                raise
            return
        # Before anybody is told: who asks again at once would else be waited for although he is there.
        self._pace.ended(now=loop.time(), sent_at=sent_at, asks=len(batch), waiting=len(self._queue))
        start = 0
        for asked in batch:
            end = start + len(asked.items)
            if not asked.answer.done():
                asked.answer.set_result(answers[start:end])
            start = end
