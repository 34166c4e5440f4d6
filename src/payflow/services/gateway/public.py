"""The public API as one ASGI application: gate, then the hot route or the others, every refusal with its limits."""

from __future__ import annotations

from typing import Final

from payflow.kernel.errors import PayflowError
from payflow.platform.http.asgi import ASGIApp, Headers, Message, Receive, Scope, Send, send_response
from payflow.platform.http.errors import PayloadTooLarge
from payflow.platform.http.problem import is_bug, problem_response
from payflow.platform.http.requests import ROUTE
from payflow.platform.http.trace import current_trace_id
from payflow.platform.tracing.requests import ERROR
from payflow.services.gateway.domain.sessions import Identity
from payflow.services.gateway.freshness import Freshness, names_of
from payflow.services.gateway.gate import Gate, LimitExceeded

# Where a request's identity is kept: an Identity, or the error that says why there is none.
IDENTITY: Final = "payflow.identity"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class PublicApp:
    """Lets admitted requests through to `hot` (path -> application) or to `routes`."""

    def __init__(
        self, *, gate: Gate, hot: dict[str, ASGIApp], routes: ASGIApp, freshness: Freshness | None = None
    ) -> None:
        self._gate = gate
        self._freshness = freshness
        self._hot = hot
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            admitted = await self._gate.admit(scope)
        except LimitExceeded as error:
            await _refuse(error, scope, _Limited(send, error.headers))
            return
        scope[IDENTITY] = admitted.identity
        limited = _Limited(send, admitted.headers)
        if self._freshness is not None and scope["method"] not in _READING and isinstance(admitted.identity, Identity):
            limited = _NotedFirst(send, admitted.headers, self._freshness, admitted.identity)
        app = self._hot.get(scope["path"])
        if app is None:
            app = self._routes
        else:
            scope[ROUTE] = scope["path"]
        if scope["method"] == "HEAD":
            # Answered as GET; the server itself leaves the body out, for it knows the method that was sent.
            scope = {**scope, "method": "GET"}
        try:
            await app(scope, receive, limited)
        except PayloadTooLarge:
            raise  # the edge also ends the connection
        except PayflowError as error:
            if limited.is_started or is_bug(error):
                raise
            await _refuse(error, scope, limited)


class _Limited:
    """`send` that adds the RateLimit fields to the answer."""

    __slots__ = ("_headers", "_send", "is_started")

    def __init__(self, send: Send, headers: Headers) -> None:
        self._send = send
        self._headers = headers
        self.is_started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            message["headers"] = [*message.get("headers", ()), *self._headers]
        await self._send(message)


class _NotedFirst(_Limited):
    """Whoever is told that something was changed can see it in lists from then on: the change is noted before."""

    __slots__ = ("_freshness", "_who")

    def __init__(self, send: Send, headers: Headers, freshness: Freshness, identity: Identity) -> None:
        super().__init__(send, headers)
        self._freshness = freshness
        self._who = names_of(identity)

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            await self._freshness.wrote(self._who)
        await super().__call__(message)


async def _refuse(error: PayflowError, scope: Scope, send: Send) -> None:
    path = str(scope["path"])[:256]
    scope[ERROR] = error.code
    await send_response(send, problem_response(error, instance=path, trace_id=current_trace_id()))
