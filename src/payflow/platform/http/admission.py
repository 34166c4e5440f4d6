"""Refusing early: beyond a bounded number of requests the answer is 503 at once, never an unbounded wait."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from prometheus_client import Counter

from payflow.kernel.errors import Overloaded
from payflow.platform.http.asgi import ASGIApp, Receive, Scope, Send
from payflow.platform.measures import LiveGauge

QUEUE_WAIT_MAX_S: Final = 1.0
STREAMS_MAX: Final = 256
ASIDE_MAX: Final = 256
_TICKET: Final = "payflow.admission"
_in_flight: Final = LiveGauge("payflow_admission_in_flight", "Requests worked on at this moment.", ["kind"])
_waiting: Final = LiveGauge("payflow_admission_waiting", "Requests that wait for their turn.", ["kind"])
_streams: Final = LiveGauge("payflow_admission_streams", "Event streams that are open.", ["kind"])
_aside: Final = LiveGauge(
    "payflow_admission_aside", "Requests that wait for somebody else and have given their place away.", ["kind"]
)
_refused: Final = Counter("payflow_admission_refused_total", "Requests refused before any work was done.", ["kind"])


class Admission:
    """Lets `max_in_flight` requests in, lets `max_queue` more wait in order for at most `queue_wait_max_s`.

    Any further request, and one that has waited in vain, gets Overloaded (503 with Retry-After) before any work was
    done for it. Wrap the routes that do work; /live, /ready, /health and /metrics stay outside, so that a full process
    still says that it lives. `name` tells it from others in metrics.
    """

    def __init__(
        self,
        max_in_flight: int,
        max_queue: int,
        *,
        name: str = "requests",
        queue_wait_max_s: float = QUEUE_WAIT_MAX_S,
        max_streams: int = STREAMS_MAX,
        max_aside: int = ASIDE_MAX,
    ) -> None:
        if max_in_flight < 1 or max_queue < 0:
            raise ValueError("max_in_flight must be at least 1, max_queue at least 0")
        self._max_in_flight = max_in_flight
        self._max_queue = max_queue
        self._queue_wait_max_s = queue_wait_max_s
        self._max_streams = max_streams
        self._max_aside = max_aside
        self._queue: deque[asyncio.Future[None]] = deque()
        self.in_flight = 0
        self.streams = 0
        self.aside = 0
        self.refused = 0
        self._refusals = _refused.labels(name)
        _in_flight.watch(self, lambda admission: admission.in_flight, name)
        _waiting.watch(self, lambda admission: admission.waiting, name)
        _streams.watch(self, lambda admission: admission.streams, name)
        _aside.watch(self, lambda admission: admission.aside, name)

    @property
    def waiting(self) -> int:
        """How many requests wait for their turn."""
        return len(self._queue)

    def is_full(self, coming: int = 0) -> bool:
        """Whether the next request would be refused at once, behind so many that are coming."""
        free = self._max_in_flight - self.in_flight + self._max_queue - len(self._queue)
        return free <= coming

    def wrap(self, app: ASGIApp) -> ASGIApp:
        """`app` behind this admission; several applications behind one share its places."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            if self.in_flight < self._max_in_flight:
                self.in_flight += 1
            else:
                await self._wait_for_place()
            ticket = scope[_TICKET] = _Ticket(self)
            try:
                await app(scope, receive, send)
            finally:
                ticket.give_back()

        return application

    def begin_stream(self) -> None:
        """Raises Overloaded when as many streams as may be are open."""
        if self.streams >= self._max_streams:
            self._refuse()
            raise Overloaded("Too many streams are open.", retry_after_s=5)
        self.streams += 1

    def let_aside(self) -> bool:
        """Take one who only waits from here on out of its place; False where as many wait as may."""
        if self.aside >= self._max_aside:
            return False
        self.aside += 1
        self.leave()
        return True

    def leave(self) -> None:
        """Give a place to whoever waits longest, else free it."""
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self.in_flight -= 1

    def _refuse(self) -> None:
        self.refused += 1
        self._refusals.inc()

    async def _wait_for_place(self) -> None:
        if len(self._queue) >= self._max_queue:
            self._refuse()
            raise Overloaded
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(turn)
        try:
            async with asyncio.timeout(self._queue_wait_max_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():
                self.leave()  # the place came in the same instant as the end of the wait
            elif turn in self._queue:
                self._queue.remove(turn)
            if isinstance(error, TimeoutError):
                self._refuse()
                raise Overloaded from None
            raise


class _Ticket:
    """One request's place, one open stream's, or that of one who stands aside."""

    __slots__ = ("_admission", "_is_aside", "_is_stream")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._is_stream = self._is_aside = False

    def turn_into_stream(self) -> None:
        if not self._is_stream:
            self._admission.begin_stream()
            self._is_stream = True
            self._admission.leave()

    def step_aside(self) -> bool:
        self._is_aside = self._admission.let_aside()
        return self._is_aside

    def give_back(self) -> None:
        if self._is_stream:
            self._admission.streams -= 1
        elif self._is_aside:
            self._admission.aside -= 1
        else:
            self._admission.leave()


def turn_into_stream(scope: Scope) -> None:
    """Called by a route before it streams for minutes: its place goes to the next request, and streams have a bound of
    their own, so that open event streams never keep payments out. Raises Overloaded when that bound is reached."""
    ticket = scope.get(_TICKET)
    if ticket is not None:
        ticket.turn_into_stream()


def step_aside(scope: Scope) -> bool:
    """Called by a route before it waits for somebody outside: its place goes to the next request, so that a slow bank
    keeps no other payment out. False where as many wait already as may: then answer without having waited."""
    ticket = scope.get(_TICKET)
    return True if ticket is None else bool(ticket.step_aside())
