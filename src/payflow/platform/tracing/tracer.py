"""Which spans a process records, and where they go. Nothing here exists while tracing is off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import time_ns
from typing import Final

from prometheus_client import Counter

from payflow.platform.context import current_span, current_traceparent
from payflow.platform.ids import new_span_id, new_trace_id
from payflow.platform.tracing.sampler import RateLimiter
from payflow.platform.tracing.span import HELD_MAX, Kind, Span

# Of traces that nobody sampled, so many spans a second are kept for an error or a review: beyond that an outage would
# send more than anybody reads.
KEPT_PER_SECOND: Final = 200
_kept: Final = Counter("payflow_spans_kept_total", "Spans of unsampled traces that were recorded after all.", ["why"])
_left_out: Final = Counter("payflow_spans_left_out_total", "Spans that were to be kept and were too many.")


class Tracer:
    """Begins and ends the spans of a process. `sink` gets every span that is to be exported; it must not wait."""

    def __init__(
        self, *, sink: Callable[[Span], None], traces_per_second: float, kept_per_second: float = KEPT_PER_SECOND
    ) -> None:
        self._sink = sink
        self.sampler = RateLimiter(traces_per_second)
        self._keeps = RateLimiter(kept_per_second)

    def child(self, name: str, *, kind: Kind) -> Span:
        """A span below the work in hand; where none is in hand, one that begins a trace if the sampler lets it."""
        traceparent = current_traceparent.get()
        if traceparent:
            own = f"{traceparent[:36]}{new_span_id()}{traceparent[52:]}"
            return Span(name, kind=kind, traceparent=own, parent_id=traceparent[36:52], parent=current_span.get())
        flags = "01" if self.sampler.take() else "00"
        return Span(name, kind=kind, traceparent=f"00-{new_trace_id()}-{new_span_id()}-{flags}")

    @contextmanager
    def in_hand(self, span: Span) -> Iterator[None]:
        """Work on this, and what is begun meanwhile is below it; finished at the end, failed where the work raises."""
        above, traceparent = current_span.get(), current_traceparent.get()
        current_span.set(span)
        current_traceparent.set(span.traceparent)
        try:
            yield
        except BaseException as error:
            span.fail(type(error).__name__)
            raise
        finally:
            self.finish(span)
            current_span.set(above)
            current_traceparent.set(traceparent)

    def finish(self, span: Span) -> None:
        """The work is done. A span that is neither sampled nor kept stays with its parent, which may still be kept."""
        span.ended_ns = time_ns()
        parent, span.parent = span.parent, None
        if span.is_sampled:
            self._sink(span)
        elif span.is_kept or (parent is not None and parent.is_kept):
            self._release(span)
        elif parent is not None and len(parent.held) < HELD_MAX:
            parent.held.append(span)

    def keep(self, span: Span, why: str) -> None:
        """Record a span, and what was done in this process for it, though its trace was not sampled."""
        if span.is_recorded:
            return
        if not self._keeps.take():
            _left_out.inc()
            return
        _kept.labels(why).inc()
        span.is_kept = True
        span.set("payflow.kept_because", why)

    def _release(self, span: Span) -> None:
        held, span.held = span.held, []
        self._sink(span)
        for child in held:
            self._release(child)


_installed: Tracer | None = None


def installed() -> Tracer | None:
    """This process's tracer; None while tracing is off."""
    return _installed


def install(tracer: Tracer | None) -> None:
    """Switch tracing on, or (None) off, in this process."""
    global _installed
    _installed = tracer


@contextmanager
def step(name: str, *, kind: Kind = Kind.INTERNAL) -> Iterator[Span | None]:
    """A part of the work in hand as a span of its own: None, and nothing done, where the work has no span."""
    tracer = installed()
    if tracer is None or current_span.get() is None:
        yield None
        return
    span = tracer.child(name, kind=kind)
    with tracer.in_hand(span):
        yield span
