"""The span of a request at the edge: a trace's root. Unsampled requests have none, unless they turn out to need one."""

from __future__ import annotations

from collections.abc import MutableMapping
from time import time_ns
from typing import Any, Final

from payflow.platform.context import current_span, current_traceparent
from payflow.platform.tracing.calls import server_span
from payflow.platform.tracing.span import Span, Value
from payflow.platform.tracing.tracer import Tracer, installed

_KEEP: Final = "payflow.keep_trace"
ERROR: Final = "payflow.error"
# Refused before any work was done, by the thousand when there is too much of it.
_REFUSED_EARLY: Final = frozenset({"OVERLOADED", "RATE_LIMITED"})


def keep_trace(scope: MutableMapping[str, Any], why: str) -> None:
    """Have this request's trace recorded though it was not sampled; `why` is a word of few."""
    scope[_KEEP] = why


def is_recorded() -> bool:
    """Whether the work in hand has a span that will be exported, so that there is a point in telling it something."""
    span = current_span.get()
    return span is not None and span.is_sampled


def stop_recording() -> None:
    """What this request still does for minutes, such as looking for news again and again, is in no trace."""
    current_span.set(None)
    current_traceparent.set(f"{current_traceparent.get()[:-2]}00")


def note(**attributes: Value | None) -> None:
    """Tell something of the work in hand where it is recorded; None is left out. Ids, states and codes only: never
    names, account numbers, amounts or anything else of a person."""
    span = current_span.get()
    if span is not None and span.is_sampled:
        for name, value in attributes.items():
            if value is not None:
                span.set(f"payflow.{name}", value)


class RequestSpans:
    """The spans of one process's requests."""

    def begin(self, *, traceparent: str, caller: bytes | None) -> Span | None:
        """The span of a sampled request, which becomes the one in hand; None for all others."""
        if traceparent[-1:] != "1" or installed() is None:
            return None
        span = server_span("", caller)
        current_span.set(span)
        return span

    def end(
        self,
        scope: MutableMapping[str, Any],
        span: Span | None,
        *,
        name: tuple[str, str],
        status: int,
        caller: bytes | None,
        seconds: float,
    ) -> None:
        """The request is answered: end its span, or make one now for an error or a review. `name`: method and route."""
        tracer = installed()
        if tracer is None:
            return
        if span is None:
            span = self._late(tracer, scope, status=status, caller=caller, seconds=seconds)
        if span is None:
            return
        span.name = " ".join(name)
        span.attributes["http.request.method"], span.attributes["http.route"] = name
        span.set("http.response.status_code", status)
        code = scope.get(ERROR)
        if code is not None:
            span.set("payflow.refused_with", code)
        if status >= 500:
            span.fail(code or str(status))
        tracer.finish(span)

    def _late(
        self,
        tracer: Tracer,
        scope: MutableMapping[str, Any],
        *,
        status: int,
        caller: bytes | None,
        seconds: float,
    ) -> Span | None:
        why = scope.get(_KEEP)
        if why is None and status >= 500 and scope.get(ERROR) not in _REFUSED_EARLY:
            why = "error"
        if why is None:
            return None
        span = server_span("", caller)
        span.started_ns = time_ns() - int(seconds * 1e9)
        tracer.keep(span, why)
        return span if span.is_kept else None
