"""Sending traces and metrics by OTLP over HTTP. Imported only where an endpoint is set: OpenTelemetry is not small."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from prometheus_client import REGISTRY

from payflow import __version__
from payflow.platform.otlp.metrics import MetricPusher
from payflow.platform.otlp.spans import SpanQueue
from payflow.platform.tracing import Tracer, install

log = structlog.get_logger(__name__)

# What a stop waits for the last spans and metrics, each.
STOP_S: Final = 0.3


class Telemetry:
    """Traces and metrics of one process on their way out, from `start` to `stop`. Needs the event loop running."""

    def __init__(
        self,
        *,
        endpoint: str,
        service: str,
        instance: str,
        env: str,
        traces_per_second: float,
        metrics_pause_s: float,
    ) -> None:
        # Its own complaints would come with every try; ours come once (see Outage), and the counters tell the rest.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        loop = asyncio.get_running_loop()
        base = endpoint.rstrip("/")
        resource = Resource.create(
            {
                "service.name": service,
                "service.namespace": "payflow",
                "service.instance.id": instance,
                "service.version": __version__,
                "deployment.environment.name": env,
            }
        )
        self._spans = SpanQueue(
            exporter=OTLPSpanExporter(endpoint=f"{base}/v1/traces", session=_session(base)),
            resource=resource,
            tell=Outage("traces", loop).told,
        )
        self._metrics: MetricPusher | None = None
        if metrics_pause_s > 0:
            self._metrics = MetricPusher(
                exporter=OTLPMetricExporter(endpoint=f"{base}/v1/metrics", session=_session(base)),
                resource=resource,
                registry=REGISTRY,
                pause_s=metrics_pause_s,
                tell=Outage("metrics", loop).told,
            )
        install(Tracer(sink=self._spans.put, traces_per_second=traces_per_second))

    def stop(self) -> None:
        """Switch tracing off and send what is left, as far as there is time."""
        install(None)
        self._spans.stop(within_s=STOP_S)
        if self._metrics is not None:
            self._metrics.stop(within_s=STOP_S)


class Outage:
    """Says once that a collector does not take what is sent, and once that it does again.

    One that never took anything is waited for, which is no warning: it may start later, or not be wanted at all.
    """

    def __init__(self, signal: str, loop: asyncio.AbstractEventLoop) -> None:
        self._signal = signal
        self._loop = loop
        self._is_out = False
        self._has_worked = False

    def told(self, is_sent: bool) -> None:
        """Hear of one sending, in the thread that sends; lines are written by the loop, in order with all others."""
        self._has_worked = self._has_worked or is_sent
        if is_sent is self._is_out:
            self._is_out = not is_sent
            is_loss = self._has_worked and not is_sent
            tell: Callable[..., None] = log.warning if is_loss else log.info
            event = "otlp.works" if is_sent else "otlp.failing" if is_loss else "otlp.waiting"
            with suppress(RuntimeError):  # the loop is gone, and so is the process in a moment
                self._loop.call_soon_threadsafe(lambda: tell(event, signal=self._signal))


def _session(endpoint: str) -> requests.Session:
    """A proxy from the environment is for addresses elsewhere."""
    session = requests.Session()
    session.trust_env = not _is_loopback(urlsplit(endpoint).hostname or "")
    return session


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
