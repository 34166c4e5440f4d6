"""The outermost layer of every process: whatever happens inside, the answer has its trace, its headers and its shape.

It is outermost because a framework's own middleware never sees a path that no route knows, and because bodies and
methods must be limited there too.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import structlog

from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.context import current_traceparent
from payflow.platform.http import headers as security
from payflow.platform.http.asgi import BODY_MAX_BYTES, ASGIApp, Headers, Message, Receive, Response, Scope, Send
from payflow.platform.http.errors import ClientGone, MethodNotAllowed, PayloadTooLarge
from payflow.platform.http.health import HEALTH_PATHS
from payflow.platform.http.problem import PROBLEM_JSON, is_bug, problem_for_status, problem_response
from payflow.platform.http.requests import RequestMeasures
from payflow.platform.http.trace import continue_trace, trace_id_of
from payflow.platform.http.turn_away import TurnAway
from payflow.platform.tracing.requests import ERROR, RequestSpans
from payflow.platform.tracing.span import exemplar_of
from payflow.platform.tracing.tracer import installed

METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Calls between services carry hundreds of payments.
INTERNAL_BODY_MAX_BYTES: Final = 16 * 1024 * 1024
RPC_PREFIX: Final = "/rpc/"
# What is written down for a request whose client did not wait for its answer.
CLIENT_GONE: Final = 499
_INSTANCE_MAX: Final = 256
_CLOSE: Final = (b"connection", b"close")
# Ours to set, or the server's: an application that sets them too would double them.
_NOT_THE_APPS: Final = frozenset({b"server", b"date", b"traceresponse"})
# What an application may say better than the default: a public key may be cached, a page may need its own policy.
_THE_APPS_IF_SET: Final = frozenset({b"cache-control", b"content-security-policy", b"cross-origin-resource-policy"})
_WATCHED: Final = _NOT_THE_APPS | _THE_APPS_IF_SET
_ABOUT_THE_BODY: Final = frozenset({b"content-type", b"content-length", b"content-encoding", b"transfer-encoding"})

log = structlog.get_logger("payflow.http")


def never() -> bool:
    """No trace is recorded."""
    return False


class EdgeLayer:
    """Wraps one process's ASGI application.

    `public` chooses the security headers and the default body limit (64 KB; 16 MB inside). A trace id is continued
    whoever sent it, but only our own `is_sampled` makes us record it; in calls between services theirs is believed.
    `bounds_own_body`: paths whose application reads longer bodies piece by piece and has a limit of its own.
    `turn_away`: what the server is to refuse before it comes here.
    Every error becomes a problem: a PayflowError its own, anything else a bare 500 that is logged with its place in
    the code and its type, without its message, which might hold a customer's data.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        service: str,
        public: bool,
        body_max_bytes: int | None = None,
        is_sampled: Callable[[], bool] = never,
        docs_path: str = "/docs",
        bounds_own_body: frozenset[str] = frozenset(),
        turn_away: TurnAway | None = None,
    ) -> None:
        self._app = app
        self._service = service
        self._public = public
        self._body_max_bytes = body_max_bytes or (BODY_MAX_BYTES if public else INTERNAL_BODY_MAX_BYTES)
        self._is_sampled = is_sampled
        self._docs_path = docs_path
        self._bounds_own_body = bounds_own_body
        self.turn_away = turn_away
        self._measures = RequestMeasures()
        self._spans = RequestSpans()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace_header, length, is_chunked = _read_head(scope)
        path = scope["path"]
        if path.startswith(RPC_PREFIX):
            traceparent, is_inside = continue_trace(trace_header), True
        else:
            # Asked by others all day long, and measured by nobody.
            is_inside = path in HEALTH_PATHS
            traceparent = continue_trace(trace_header, is_sampled=not is_inside and self._is_sampled())
        current_traceparent.set(traceparent)
        answer = _Answer(scope, send, traceparent, self._headers_for(scope), self._public)
        if is_inside:
            await self._run(scope, receive, answer, length, is_chunked)
            return
        span = self._spans.begin(traceparent=traceparent, caller=trace_header)
        began_at = perf_counter()
        try:
            await self._run(scope, receive, answer, length, is_chunked)
        finally:
            seconds, status = perf_counter() - began_at, answer.status or CLIENT_GONE
            method, route = _method(scope), self._measures.route_of(scope)
            self._measures.answered(method, route, status=status, seconds=seconds, exemplar=exemplar_of(span))
            if installed() is not None:
                self._spans.end(scope, span, name=(method, route), status=status, caller=trace_header, seconds=seconds)

    async def _run(self, scope: Scope, receive: Receive, answer: _Answer, length: int, is_chunked: bool) -> None:
        """Have the request answered, by a problem where the application raises."""
        try:
            if scope["method"] not in METHODS:
                raise MethodNotAllowed(allow=METHODS)
            if length > self._body_max_bytes or is_chunked:
                receive = self._bounded(scope, receive, length)
            await self._app(scope, receive, answer.send)
            if not answer.is_started:
                raise RuntimeError("the application returned without an answer")
            if self._public and ERROR in scope:
                # Refused by the application itself, which has fields of its own for the answer.
                self._log_refusal(scope[ERROR], scope, answer.traceparent)
        except ClientGone:
            return
        except PayflowError as error:
            scope[ERROR] = error.code
            if is_bug(error):
                self._log_bug(error, scope, answer.traceparent)
            elif self._public:
                self._log_refusal(error.code, scope, answer.traceparent)
            await answer.fail(error)
        except asyncio.CancelledError:
            # Only a drain that ran out of time cancels a request; its task ends here.
            await answer.fail(Unavailable("The service is stopping; repeat with the same key."))
        except Exception as error:
            self._log_bug(error, scope, answer.traceparent)
            await answer.fail(error)

    def _bounded(self, scope: Scope, receive: Receive, length: int) -> Receive:
        """`receive` that keeps the limit, but for a path whose application says that it does so itself."""
        if scope["path"] in self._bounds_own_body:
            return receive
        if length > self._body_max_bytes:
            raise PayloadTooLarge(limit_bytes=self._body_max_bytes)
        return _counted(receive, self._body_max_bytes)

    def _headers_for(self, scope: Scope) -> Headers:
        if not self._public:
            return security.INTERNAL
        path = scope["path"]
        if path.startswith(self._docs_path) and path[len(self._docs_path) :][:1] in ("", "/"):
            return security.PUBLIC_DOCS
        return security.PUBLIC

    def _log_refusal(self, code: str, scope: Scope, traceparent: str) -> None:
        """One line, so that the trace id of a refusal finds it; a flood of refused requests fills no disk."""
        tell = log.debug if code in ("RATE_LIMITED", "OVERLOADED") else log.info
        tell(
            "request_refused",
            service=self._service,
            trace_id=trace_id_of(traceparent),
            method=scope["method"],
            path=scope["path"][:_INSTANCE_MAX].split("/")[1][:32],
            error_code=code,
        )

    def _log_bug(self, error: Exception, scope: Scope, traceparent: str) -> None:
        log.error(
            "unhandled_exception",
            service=self._service,
            trace_id=trace_id_of(traceparent),
            method=scope["method"],
            error=_kind_of(error),
            at=_places_in_code(error),
        )


class _Answer:
    """One answer on its way out: adds the headers, and replaces an error that is not a problem by one that is."""

    __slots__ = ("_headers", "_public", "_replaced", "_scope", "_send", "is_started", "status", "traceparent")

    def __init__(self, scope: Scope, send: Send, traceparent: str, headers: Headers, public: bool) -> None:
        self._scope = scope
        self._send = send
        self.traceparent = traceparent
        self._headers = headers
        self._public = public
        self._replaced: Response | None = None
        self.is_started = False
        self.status = 0

    async def send(self, message: Message) -> None:
        """The `send` that the application gets."""
        if message["type"] == "http.response.start":
            self.is_started = True
            status, headers = message["status"], message.get("headers", ())
            self.status = status
            if status >= 400 and self._is_foreign(headers):
                self._replaced = self._problem_instead(status, headers)
                return
            message["headers"] = self._dressed(headers)
        elif self._replaced is not None:
            if not message.get("more_body", False):
                replaced, self._replaced = self._replaced, None
                await self._send_whole(replaced)
            return
        await self._send(message)

    async def fail(self, error: BaseException) -> None:
        """Answer with the error's problem; an answer that has begun already stays cut off, for the server to end."""
        if self.is_started and self._replaced is None:
            return
        self.is_started = True
        response = problem_response(error, instance=self._instance(), trace_id=trace_id_of(self.traceparent))
        if isinstance(error, PayloadTooLarge):
            response.headers.append(_CLOSE)  # the rest of the body is not worth reading
        await self._send_whole(response)

    async def _send_whole(self, response: Response) -> None:
        headers = self._dressed(response.headers)
        self.status = response.status
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body})

    def _dressed(self, headers: Any) -> Headers:
        """The application's headers and ours."""
        own = self._headers
        trace = (b"traceresponse", self.traceparent.encode("ascii"))
        seen = {name for name, _ in headers} & _WATCHED
        if not seen:
            return [*headers, *own, trace]
        kept = [(name, value) for name, value in headers if name not in _NOT_THE_APPS]
        return [*kept, *((name, value) for name, value in own if name not in seen), trace]

    def _is_foreign(self, headers: Any) -> bool:
        """Whether an error answer is a framework's rather than one of ours.

        A health check says 503 in its own words, and calls between services have a format of their own.
        """
        content_type = next((value for name, value in headers if name == b"content-type"), b"")
        if content_type.startswith(PROBLEM_JSON):
            return False
        if self._scope["path"] in HEALTH_PATHS and content_type.startswith(b"application/json"):
            return False
        return self._public or not content_type or content_type.startswith(b"text/")

    def _problem_instead(self, status: int, headers: Any) -> Response:
        trace_id = trace_id_of(self.traceparent)
        if status >= 500:  # a framework kept the exception to itself: at least its trace id can be found
            log.error("error_without_problem", status=status, method=self._scope["method"], trace_id=trace_id)
        problem = problem_for_status(status, instance=self._instance(), trace_id=trace_id)
        kept = [(name, value) for name, value in headers if name not in _ABOUT_THE_BODY]
        said = {name for name, _ in kept}
        return Response(status, kept + [item for item in problem.headers if item[0] not in said], problem.body)

    def _instance(self) -> str:
        return str(self._scope["path"])[:_INSTANCE_MAX]


def _method(scope: Scope) -> str:
    method: str = scope["method"]
    return method if method in METHODS else "other"


def _read_head(scope: Scope) -> tuple[bytes | None, int, bool]:
    """(traceparent unless doubled, Content-Length or 0, whether the length is not known beforehand)."""
    trace_header: bytes | None = None
    length, is_chunked, traces = 0, False, 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = int(value)
        elif name == b"traceparent":
            trace_header = value
            traces += 1
        elif name == b"transfer-encoding":
            is_chunked = True
    return trace_header if traces == 1 else None, length, is_chunked


def _counted(receive: Receive, limit_bytes: int) -> Receive:
    """`receive` that raises PayloadTooLarge as soon as more than the limit has arrived."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes=limit_bytes)
        return message

    return counted


def _kind_of(error: BaseException) -> str:
    """The exception's type and those it came from, innermost last."""
    kinds = [f"{type(error).__module__}.{type(error).__qualname__}"]
    cause = error.__cause__ or error.__context__
    while cause is not None and len(kinds) < 5:
        kinds.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        cause = cause.__cause__ or cause.__context__
    return " <- ".join(kinds)


def _places_in_code(error: BaseException) -> list[str]:
    """Where it happened: the last ten frames, innermost last."""
    frames = traceback.extract_tb(error.__traceback__)[-10:]
    return [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames]
