"""The figures of `/metrics` as OTLP metrics: the same names, labels and values, sent every few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from time import time_ns
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricExportResult,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric as Family

from payflow import __version__
from payflow.platform.otlp.worker import Worker

_SCOPE: Final = InstrumentationScope("payflow", __version__)
_INFINITY: Final = "+Inf"
_sent: Final = Counter("payflow_metric_exports_total", "Sendings of all metrics: exported or failed.", ["outcome"])


class MetricPusher:
    """Sends a registry's metrics again and again. `tell` hears whether that went well, in the sending thread."""

    def __init__(
        self,
        *,
        exporter: OTLPMetricExporter,
        resource: Resource,
        registry: CollectorRegistry,
        pause_s: float,
        tell: Callable[[bool], None],
    ) -> None:
        self._exporter = exporter
        self._resource = resource
        self._registry = registry
        self._tell = tell
        self._since_ns = time_ns()
        self._worker = Worker("metrics", pause_s=pause_s, work=self._send)

    def stop(self, *, within_s: float) -> None:
        """Send a last time, for as long as that may take."""
        self._worker.stop(within_s=within_s)
        self._exporter.shutdown()

    def _send(self) -> None:
        try:
            data = as_metrics(self._registry.collect(), self._resource, since_ns=self._since_ns, now_ns=time_ns())
            is_sent = self._exporter.export(data) is MetricExportResult.SUCCESS
        except Exception:
            # Whatever it was, telemetry must not end the thread; `tell` complains.
            is_sent = False
        _sent.labels("exported" if is_sent else "failed").inc()
        self._tell(is_sent)


def as_metrics(families: Iterable[Family], resource: Resource, *, since_ns: int, now_ns: int) -> MetricsData:
    """Prometheus' metrics as OpenTelemetry's: counters are cumulative sums since `since_ns`, the process's start."""
    made = [_metric(family, since_ns, now_ns) for family in families]
    scope = ScopeMetrics(scope=_SCOPE, metrics=[metric for metric in made if metric is not None], schema_url="")
    return MetricsData([ResourceMetrics(resource=resource, scope_metrics=[scope], schema_url="")])


def _metric(family: Family, since_ns: int, now_ns: int) -> Metric | None:
    data: Sum | Gauge | Histogram
    if family.type == "counter":
        points = [
            _number(sample.labels, sample.value, since_ns, now_ns)
            for sample in family.samples
            if sample.name.endswith("_total")
        ]
        data = Sum(points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        name = f"{family.name}_total"
    elif family.type == "gauge":
        points = [_number(sample.labels, sample.value, since_ns, now_ns) for sample in family.samples]
        data, name = Gauge(points), family.name
    elif family.type == "histogram":
        data = Histogram(_histograms(family, since_ns, now_ns), AggregationTemporality.CUMULATIVE)
        name = family.name
    else:
        return None
    return Metric(name=name, description=family.documentation, unit="", data=data) if data.data_points else None


def _number(labels: Mapping[str, str], value: float, since_ns: int, now_ns: int) -> NumberDataPoint:
    return NumberDataPoint(dict(labels), since_ns, now_ns, float(value))


def _histograms(family: Family, since_ns: int, now_ns: int) -> list[HistogramDataPoint]:
    """Prometheus counts everything up to each bound, OpenTelemetry what lies between two."""
    found: dict[tuple[tuple[str, str], ...], dict[str, Any]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != "le"}
        one = found.setdefault(tuple(labels.items()), {"labels": labels, "bounds": [], "counts": [], "sum": 0.0})
        if sample.name.endswith("_bucket"):
            below = sum(one["counts"])
            one["counts"].append(int(sample.value) - below)
            if sample.labels["le"] != _INFINITY:
                one["bounds"].append(float(sample.labels["le"]))
        elif sample.name.endswith("_sum"):
            one["sum"] = float(sample.value)
    return [
        HistogramDataPoint(
            attributes=one["labels"],
            start_time_unix_nano=since_ns,
            time_unix_nano=now_ns,
            count=sum(one["counts"]),
            sum=one["sum"],
            bucket_counts=one["counts"],
            explicit_bounds=one["bounds"],
            min=None,  # type: ignore[arg-type]
            max=None,  # type: ignore[arg-type]
        )
        for one in found.values()
        if one["counts"]
    ]
