"""The answering side: routes `/rpc/<service>/<operation>` over the implementations of contracts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any, Final

import structlog
from prometheus_client import Counter, Histogram

from payflow.contracts.operation import OperationSpec, operations_of
from payflow.kernel.errors import DeadlineExceeded, PayflowError, UnknownOutcome
from payflow.platform.context import current_deadline, current_span
from payflow.platform.lines import CallLines
from payflow.platform.measures import SECONDS
from payflow.platform.rpc.client import DEADLINE_HEADER
from payflow.platform.rpc.identity import CallerNotAllowed, Verifier
from payflow.platform.rpc.wire import Codec, WireError
from payflow.platform.tracing.calls import CallSpans
from payflow.platform.tracing.span import exemplar_of

log = structlog.get_logger(__name__)

Handler = Callable[[list[Any]], Awaitable[list[Any]]]

_seconds: Final = Histogram(
    "payflow_rpc_seconds", "Time per call, in the service that answers it.", ["service", "operation"], buckets=SECONDS
)
_answers: Final = Counter(
    "payflow_rpc_answers_total", "Answers per operation and code.", ["service", "operation", "code"]
)


class Route:
    """One operation: its codec, who may call it, and what answers it."""

    def __init__(self, spec: OperationSpec, handler: Handler) -> None:
        self.spec = spec
        self.codec = Codec(spec)
        self.spans = CallSpans(spec)
        self.lines = CallLines(spec, "call.answered")
        self.handler = handler
        self._seconds = _seconds.labels(spec.service, spec.name)
        self._ok = _answers.labels(spec.service, spec.name, "OK")

    async def call(self, items: list[Any]) -> list[Any]:
        """Run the handler; an exception of the four families becomes every item's answer."""
        began_at = perf_counter()
        try:
            answers = await self.handler(items)
        except PayflowError as error:
            answers = [error for _ in items]
        finally:
            self._seconds.observe(perf_counter() - began_at, exemplar_of(current_span.get()))
        if len(answers) != len(items):
            raise RuntimeError(
                f"{self.spec.service}.{self.spec.name} gave {len(answers)} answers to {len(items)} items"
            )
        failures = [answer.code for answer in answers if isinstance(answer, PayflowError)]
        self._ok.inc(len(answers) - len(failures))
        for code in failures:
            _answers.labels(self.spec.service, self.spec.name, code).inc()
        return answers


class RpcServer:
    """Answers calls to the operations of the given contracts. Knows bytes, not HTTP: `answer` is called by the app."""

    def __init__(self, *, verifier: Verifier) -> None:
        self._verifier = verifier
        self._routes: dict[str, Route] = {}

    def add(self, contract: type[Any], implementation: object) -> None:
        """Serve a contract. Raises TypeError when the implementation lacks an operation."""
        for name, spec in operations_of(contract).items():
            handler = getattr(implementation, name, None)
            if handler is None:
                raise TypeError(f"{type(implementation).__name__} does not implement {contract.__name__}.{name}")
            self._routes[f"/rpc/{spec.service}/{name}"] = Route(spec, handler)

    def route_for(self, path: str) -> Route | None:
        """The route at this path, if there is one."""
        return self._routes.get(path)

    def check_caller(self, route: Route, authorization: str) -> str:
        """The caller's name. Raises ServiceIdentityRequired or CallerNotAllowed."""
        caller = self._verifier.caller_of(authorization)
        if caller not in route.spec.options.callers:
            raise CallerNotAllowed(f"{caller} may not call {route.spec.service}.{route.spec.name}.")
        return caller

    async def answer(
        self, route: Route, body: bytes, deadline_ms: str | None, *, traceparent: bytes | None = None
    ) -> bytes:
        """The encoded answers to an encoded batch. Raises WireError when the batch cannot be read.

        The deadline passed on by the caller bounds the work and every further call made for it; `traceparent` is the
        caller's, as received.
        """
        items = route.codec.decode_items(body)
        span = route.spans.begin_server(traceparent)
        began_at = perf_counter()
        try:
            answers = await self._answers(route, items, deadline_ms)
        except BaseException as error:
            if span is not None:
                route.spans.end_server(span, items, error)
            raise
        if span is not None:
            route.spans.end_server(span, items, answers)
        route.lines.write(items, answers, seconds=perf_counter() - began_at)
        return route.codec.encode_answers(answers)

    async def _answers(self, route: Route, items: list[Any], deadline_ms: str | None) -> list[Any]:
        timeout_s = route.spec.options.timeout_s
        if deadline_ms is not None and deadline_ms.isdecimal():
            timeout_s = min(timeout_s, int(deadline_ms) / 1000)
        if timeout_s <= 0:
            return [DeadlineExceeded("The deadline had passed on arrival.")] * len(items)
        token = current_deadline.set(asyncio.get_running_loop().time() + timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await route.call(items)
        except TimeoutError:
            log.warning("rpc.timeout", operation=f"{route.spec.service}.{route.spec.name}", items=len(items))
            return [UnknownOutcome("It took too long.")] * len(items)
        finally:
            current_deadline.reset(token)


__all__ = ["DEADLINE_HEADER", "RpcServer", "Route", "WireError"]
