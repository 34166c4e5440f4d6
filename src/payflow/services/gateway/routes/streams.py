"""Server-sent events: a payment's history, then each step as it is taken; a bulk order's progress; until the end."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec
from litestar import Response

from payflow.contracts.bulk import Bulk, BulkView, GetBulk
from payflow.contracts.confirm import Confirm, GetPayment, PaymentHistory, PaymentState, TransitionView
from payflow.contracts.gateway import RateLimited
from payflow.kernel.errors import PayflowError
from payflow.platform.http.admission import turn_into_stream
from payflow.platform.http.asgi import Receive, Scope, Send
from payflow.platform.http.draining import is_draining
from payflow.platform.tracing import stop_recording
from payflow.services.gateway.domain.sessions import Identity
from payflow.services.gateway.gate import Gate

FINAL: Final = frozenset({PaymentState.COMPLETED, PaymentState.REJECTED, PaymentState.CANCELLED, PaymentState.EXPIRED})
STREAMS_PER_USER: Final = 8
LOOK_S_MIN: Final = 0.25
LOOK_S_MAX: Final = 2.0
HEARTBEAT_S: Final = 10.0
_HEADERS: Final = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"x-accel-buffering", b"no")]
_encode: Final = msgspec.json.Encoder().encode


class StreamPlaces:
    """How many streams each user has open on this process."""

    def __init__(self, per_user: int = STREAMS_PER_USER) -> None:
        self._per_user = per_user
        self._open: dict[str, int] = {}

    @contextmanager
    def place(self, username: str) -> Iterator[None]:
        """Hold one place. Raises RateLimited when the user has as many as may be."""
        taken = self._open.get(username, 0)
        if taken >= self._per_user:
            raise RateLimited(f"At most {self._per_user} event streams may be open.", retry_after_s=5)
        self._open[username] = taken + 1
        try:
            yield
        finally:
            self._open[username] -= 1
            if not self._open[username]:
                del self._open[username]


class EventStream(Response[None], ABC):
    """Server-sent events: what is new, again and again, until it is over. `user`: whose token must stay good."""

    def __init__(self, *, user: Identity, gate: Gate, places: StreamPlaces) -> None:
        super().__init__(None, media_type="text/event-stream")
        self._user, self._gate, self._places = user, gate, places

    @abstractmethod
    def news(self) -> bytes:
        """The events that were not sent yet; empty when nothing has happened."""

    @abstractmethod
    def is_over(self) -> bool:
        """Whether no more events will come."""

    @abstractmethod
    async def look(self) -> None:
        """Learn what has happened since."""

    def to_asgi_response(self, *_: Any, **__: Any) -> Any:
        return self._run

    async def _run(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._places.place(self._user.username):
            turn_into_stream(scope)
            stop_recording()
            await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
            gone = asyncio.create_task(_gone(receive))
            try:
                await self._tell(scope, send, gone)
            finally:
                gone.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _tell(self, scope: Scope, send: Send, gone: asyncio.Task[None]) -> None:
        """Send what is new until it is over, the client leaves, its token is no longer good, or this process drains. In
        that case the client comes back to another one, and says what it has heard."""
        pause, quiet_since = LOOK_S_MIN, time.monotonic()
        while True:
            if news := self.news():
                await send({"type": "http.response.body", "body": news, "more_body": True})
                pause, quiet_since = LOOK_S_MIN, time.monotonic()
            if self.is_over() or gone.done() or is_draining(scope):
                return
            await asyncio.wait({gone}, timeout=pause)
            pause = min(pause * 1.3, LOOK_S_MAX)
            if time.monotonic() - quiet_since >= HEARTBEAT_S:
                if await self._gate.is_over(self._user):
                    return
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                quiet_since = time.monotonic()
            await self.look()


class PaymentStream(EventStream):
    """The answer to `GET /payments/{transaction_id}/events`."""

    def __init__(
        self,
        *,
        query: GetPayment,
        history: PaymentHistory,
        after: int,
        user: Identity,
        confirm: Confirm,
        gate: Gate,
        places: StreamPlaces,
    ) -> None:
        super().__init__(user=user, gate=gate, places=places)
        self._query, self._history, self._heard, self._confirm = query, history, after, confirm

    def news(self) -> bytes:
        news = b"".join(_event(step) for step in self._history.transitions if step.version > self._heard)
        self._heard = max(self._heard, self._history.payment.version)
        return news

    def is_over(self) -> bool:
        return self._history.payment.state in FINAL

    async def look(self) -> None:
        (history,) = await self._confirm.history([self._query])
        # confirm may be away for a moment; the stream outlives that.
        if not isinstance(history, PayflowError):
            self._history = history


class BulkStream(EventStream):
    """The answer to `GET /payments/bulk/{bulk_id}/events`: the order as it stands, each time that it has changed."""

    def __init__(
        self,
        *,
        query: GetBulk,
        view: BulkView,
        told_as: Callable[[BulkView], msgspec.Struct],
        user: Identity,
        bulk: Bulk,
        gate: Gate,
        places: StreamPlaces,
    ) -> None:
        super().__init__(user=user, gate=gate, places=places)
        self._query, self._view, self._told_as, self._bulk = query, view, told_as, bulk
        self._heard: BulkView | None = None

    def news(self) -> bytes:
        if self._view == self._heard:
            return b""
        self._heard = self._view
        name = self._view.state.value.encode("ascii")
        return b"event: %s\ndata: %s\n\n" % (name, _encode(self._told_as(self._view)))

    def is_over(self) -> bool:
        return self._view.ended_at is not None

    async def look(self) -> None:
        (view,) = await self._bulk.get_bulk([self._query])
        if not isinstance(view, PayflowError):
            self._view = view


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(step: TransitionView) -> bytes:
    data = _encode({"version": step.version, "state": step.target, "from": step.source, "at": step.at})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (step.version, step.target.value.encode("ascii"), data)
