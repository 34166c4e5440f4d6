"""Spans of the event log: where events are written, published to Kafka and read, joined to the payments' own traces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from payflow.kernel.envelope import Event
from payflow.platform.ids import new_span_id
from payflow.platform.tracing.answers import SAMPLED, joined
from payflow.platform.tracing.span import LINKS_MAX, Kind, Span
from payflow.platform.tracing.tracer import installed, step

EVENT_LOG: Final = "payflow_event_log"
KAFKA: Final = "kafka"


@contextmanager
def writing(events: Sequence[Event]) -> Iterator[None]:
    """While these events are stored: a span below the work in hand, with links to the traces of their payments."""
    with step("event log send", kind=Kind.PRODUCER) as span:
        if span is not None:
            _describe(span, events, system=EVENT_LOG)
            for traceparent in _sampled(events):
                if traceparent[3:35] != span.trace_id:
                    span.link(trace_id=traceparent[3:35], span_id=traceparent[36:52])
        yield


@contextmanager
def reading(consumer: str, events: Sequence[Event], *, system: str = EVENT_LOG) -> Iterator[None]:
    """While a consumer handles these events, which it read from the log or from Kafka."""
    with _in_their_traces(f"event log process {consumer}", Kind.CONSUMER, events, system=system, consumer=consumer):
        yield


@contextmanager
def publishing(events: Sequence[Event]) -> Iterator[None]:
    """While the relay publishes these events to Kafka."""
    with _in_their_traces("event log publish", Kind.PRODUCER, events, system=KAFKA):
        yield


@contextmanager
def _in_their_traces(
    name: str, kind: Kind, events: Sequence[Event], *, system: str, consumer: str = ""
) -> Iterator[None]:
    """A span in the trace of one of these events that is recorded, and one linked to it in each of the others' traces.
    Nothing where none is recorded."""
    tracer = installed()
    traces = _sampled(events) if tracer is not None else []
    if tracer is None or not traces:
        yield
        return
    first, *others = traces
    span = _below(first, name, kind)
    _describe(span, events, system=system, consumer=consumer)
    for traceparent in others:
        span.link(trace_id=traceparent[3:35], span_id=traceparent[36:52])
    try:
        with tracer.in_hand(span):
            yield
    finally:
        for traceparent in others:
            own = joined(span, traceparent=traceparent, kind=kind)
            own.set("messaging.system", system)
            if consumer:
                own.set("messaging.consumer.group.name", consumer)
            own.error = span.error
            tracer.finish(own)


def _below(traceparent: str, name: str, kind: Kind) -> Span:
    own = f"{traceparent[:36]}{new_span_id()}{traceparent[52:]}"
    return Span(name, kind=kind, traceparent=own, parent_id=traceparent[36:52])


def _describe(span: Span, events: Sequence[Event], *, system: str, consumer: str = "") -> None:
    span.set("messaging.system", system)
    span.set("messaging.batch.message_count", len(events))
    span.set("payflow.event_types", sorted({event.type for event in events}))
    if consumer:
        span.set("messaging.consumer.group.name", consumer)


def _sampled(events: Sequence[Event]) -> list[str]:
    """One traceparent of each recorded trace that these events belong to."""
    found: dict[str, str] = {}
    for event in events:
        if event.traceparent[-1:] == SAMPLED:
            found.setdefault(event.traceparent[3:35], event.traceparent)
    return list(found.values())[:LINKS_MAX]
