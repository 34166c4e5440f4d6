"""Tracing switched on for one test, with the finished spans in a list."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from payflow.platform.context import current_span, current_traceparent
from payflow.platform.ids import new_span_id, new_trace_id
from payflow.platform.tracing import Kind, Span, Tracer, install


class Traces:
    """What was finished, in order."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def of(self, trace_id: str) -> list[Span]:
        """The spans of one trace."""
        return [span for span in self.spans if span.trace_id == trace_id]

    def named(self, name: str, kind: Kind | None = None) -> list[Span]:
        """The spans of one name, and of one kind if it is given."""
        return [span for span in self.spans if span.name == name and kind in (None, span.kind)]


@contextmanager
def traced(*, traces_per_second: float = 1000, kept_per_second: float = 1000) -> Iterator[Traces]:
    """Record spans inside the block."""
    traces = Traces()
    install(Tracer(sink=traces.spans.append, traces_per_second=traces_per_second, kept_per_second=kept_per_second))
    try:
        yield traces
    finally:
        install(None)


def traceparent(*, is_sampled: bool = True, trace_id: str = "") -> str:
    """A traceparent of somebody's."""
    return f"00-{trace_id or new_trace_id()}-{new_span_id()}-{'01' if is_sampled else '00'}"


def begin_root(*, is_sampled: bool = True) -> Span:
    """Put a request's span into the present context, as the edge does for a sampled one."""
    span = Span("POST /payment/confirm", kind=Kind.SERVER, traceparent=traceparent(is_sampled=is_sampled))
    current_traceparent.set(span.traceparent)
    current_span.set(span if is_sampled else None)
    return span
