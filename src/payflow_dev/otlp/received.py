"""What an OTLP message says, in plain values."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

KINDS: Final = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpan:
    """A span as it was received. Ids are hexadecimal; `parent_id` is empty for a root; `links` are (trace, span)."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    service: str
    instance: str
    started_ns: int
    ended_ns: int
    error: str
    attributes: dict[str, Any]
    links: list[tuple[str, str]]
    events: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long it took."""
        return (self.ended_ns - self.started_ns) / 1e9


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenPoint:
    """One value of a metric; of a histogram its count."""

    name: str
    service: str
    instance: str
    labels: dict[str, Any]
    value: float
    buckets: list[int] = field(default_factory=list)


def spans_in(body: bytes) -> Iterator[SeenSpan]:
    """The spans of a message. Raises google.protobuf's DecodeError for anything else."""
    for part in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _attributes(part.resource.attributes)
        for scope in part.scope_spans:
            for span in scope.spans:
                yield SeenSpan(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    kind=KINDS[span.kind],
                    service=str(resource.get("service.name", "")),
                    instance=str(resource.get("service.instance.id", "")),
                    started_ns=span.start_time_unix_nano,
                    ended_ns=span.end_time_unix_nano,
                    error=span.status.message if span.status.code == 2 else "",
                    attributes=_attributes(span.attributes),
                    links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
                    events=[(event.name, _attributes(event.attributes)) for event in span.events],
                )


def points_in(body: bytes) -> Iterator[SeenPoint]:
    """The values of a message of metrics. Raises google.protobuf's DecodeError for anything else."""
    for part in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        resource = _attributes(part.resource.attributes)
        told: dict[str, Any] = {
            "service": str(resource.get("service.name", "")),
            "instance": str(resource.get("service.instance.id", "")),
        }
        for scope in part.scope_metrics:
            for metric in scope.metrics:
                for number in (*metric.sum.data_points, *metric.gauge.data_points):
                    labels = _attributes(number.attributes)
                    yield SeenPoint(name=metric.name, labels=labels, value=number.as_double or number.as_int, **told)
                for many in metric.histogram.data_points:
                    labels, buckets = _attributes(many.attributes), list(many.bucket_counts)
                    yield SeenPoint(name=metric.name, labels=labels, value=many.count, buckets=buckets, **told)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)
