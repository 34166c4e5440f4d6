"""Finished spans on their way to a collector: a bounded queue that a thread empties. What does not fit is dropped."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import Event, ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client import Counter

from payflow import __version__
from payflow.platform.otlp.worker import Worker
from payflow.platform.tracing.span import Span

QUEUE_MAX: Final = 4096
BATCH_MAX: Final = 512
PAUSE_S: Final = 1.0
_SAMPLED: Final = TraceFlags(TraceFlags.SAMPLED)
_SCOPE: Final = InstrumentationScope("payflow", __version__)
_OK: Final = Status()
_spans: Final = Counter(
    "payflow_spans_total", "Spans: exported, failed (the collector did not take them), dropped (too many).", ["outcome"]
)
_exported, _failed, _dropped = (_spans.labels(outcome) for outcome in ("exported", "failed", "dropped"))


class SpanQueue:
    """Takes spans without waiting, and sends them. `tell` hears whether that went well, in the sending thread."""

    def __init__(
        self,
        *,
        exporter: OTLPSpanExporter,
        resource: Resource,
        tell: Callable[[bool], None],
        queue_max: int = QUEUE_MAX,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._exporter = exporter
        self._resource = resource
        self._tell = tell
        self._queue_max = queue_max
        self._queue: deque[Span] = deque()
        self._worker = Worker("spans", pause_s=pause_s, work=self._send_all)

    def put(self, span: Span) -> None:
        """Have a finished span sent."""
        waiting = len(self._queue)
        if waiting >= self._queue_max:
            _dropped.inc()
            return
        self._queue.append(span)
        if waiting + 1 >= BATCH_MAX:
            self._worker.wake()

    def stop(self, *, within_s: float) -> None:
        """Send what is left, for as long as that may take."""
        self._worker.stop(within_s=within_s)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _send_all(self) -> None:
        while self._queue:
            batch = [self._queue.popleft() for _ in range(min(len(self._queue), BATCH_MAX))]
            is_sent = self._send(batch)
            (_exported if is_sent else _failed).inc(len(batch))
            self._tell(is_sent)

    def _send(self, batch: Sequence[Span]) -> bool:
        try:
            return self._exporter.export([as_readable(span, self._resource) for span in batch]) is (
                SpanExportResult.SUCCESS
            )
        except Exception:
            # Whatever it was, telemetry must not end the thread; `tell` complains.
            return False


def as_readable(span: Span, resource: Resource) -> ReadableSpan:
    """A span as the exporter takes it. It is marked as sampled even where its trace was not: it was kept."""
    parent = _context(span.trace_id, span.parent_id) if span.parent_id else None
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=parent,
        resource=resource,
        attributes=span.attributes,
        events=[Event(name, attributes, timestamp=at) for name, at, attributes in span.events],
        links=[Link(_context(trace_id, span_id)) for trace_id, span_id in span.links],
        kind=SpanKind(span.kind),
        status=Status(StatusCode.ERROR, span.error) if span.error else _OK,
        start_time=span.started_ns,
        end_time=span.ended_ns,
        instrumentation_scope=_SCOPE,
    )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=_SAMPLED)
