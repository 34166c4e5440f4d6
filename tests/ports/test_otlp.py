"""Sending by OTLP to a real receiver: what arrives is what was recorded, and nobody ever waits for it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from payflow.platform.ids import new_span_id, new_trace_id
from payflow.platform.otlp import Telemetry
from payflow.platform.otlp.metrics import as_metrics
from payflow.platform.otlp.spans import SpanQueue
from payflow.platform.tracing import Kind, installed, step
from payflow.platform.tracing.span import Span
from payflow_dev.otlp.receiver import Receiver
from payflow_dev.otlp.tree import tree_of
from tests.builders_tracing import begin_root, traceparent

RESOURCE = Resource({"service.name": "confirm"})


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as receiver:
        yield receiver


def a_span(**more: Any) -> Span:
    span = Span("risk/assess", kind=Kind.CLIENT, traceparent=traceparent(), parent_id=new_span_id(), **more)
    span.ended_ns = span.started_ns + 5_000_000
    return span


def spans_told(outcome: str) -> float:
    return REGISTRY.get_sample_value("payflow_spans_total", {"outcome": outcome}) or 0.0


def pushes_failed() -> float:
    return REGISTRY.get_sample_value("payflow_metric_exports_total", {"outcome": "failed"}) or 0.0


async def until(condition: Callable[[], bool]) -> None:
    """Wait until it is so: a sending takes a second's pause and, at most, a request of ten."""
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise TimeoutError


def telemetry(endpoint: str, *, metrics_pause_s: float = 0.2) -> Telemetry:
    return Telemetry(
        endpoint=endpoint,
        service="confirm",
        instance="confirm-1",
        env="development",
        traces_per_second=100,
        metrics_pause_s=metrics_pause_s,
    )


def a_closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def test_a_span_arrives_with_all_that_it_says(receiver: Receiver) -> None:
    span = a_span()
    span.set("payflow.risk.level", "HIGH")
    span.set("payflow.risk.rules_hit", ("LARGE_AMOUNT", "VELOCITY"))
    span.set("payflow.items", 3)
    span.set("payflow.joined", True)
    span.tell("answers", {"payflow.items": 2})
    other = new_trace_id(), new_span_id()
    span.link(trace_id=other[0], span_id=other[1])
    span.fail("UNKNOWN_OUTCOME")

    sending = telemetry(receiver.url)
    tracer = installed()
    assert tracer is not None
    tracer.finish(span)
    (seen,) = await asyncio.to_thread(receiver.wait_until, lambda: receiver.spans(span.trace_id), seconds=5)
    sending.stop()

    assert (seen.trace_id, seen.span_id, seen.parent_id) == (span.trace_id, span.span_id, span.parent_id)
    assert (seen.name, seen.kind, seen.error) == ("risk/assess", "CLIENT", "UNKNOWN_OUTCOME")
    assert (seen.service, seen.instance) == ("confirm", "confirm-1")
    assert seen.attributes == {
        "payflow.risk.level": "HIGH",
        "payflow.risk.rules_hit": ["LARGE_AMOUNT", "VELOCITY"],
        "payflow.items": 3,
        "payflow.joined": True,
    }
    assert (seen.links, seen.events) == ([other], [("answers", {"payflow.items": 2})])
    assert (seen.started_ns, seen.ended_ns) == (span.started_ns, span.ended_ns)


async def test_a_stop_sends_what_was_recorded_last_and_switches_tracing_off(receiver: Receiver) -> None:
    sending = telemetry(receiver.url)
    root = begin_root()
    with step("last words"):
        pass

    sending.stop()

    assert [span.name for span in receiver.spans(root.trace_id)] == ["last words"]
    assert installed() is None


async def test_the_metrics_of_the_process_arrive_with_their_labels(receiver: Receiver) -> None:
    sending = telemetry(receiver.url)
    (point,) = await asyncio.to_thread(receiver.wait_until, lambda: receiver.points("payflow_build_info"), seconds=5)
    sending.stop()

    assert (point.value, point.service, point.instance) == (1, "confirm", "confirm-1")
    assert point.labels["version"]


def test_prometheus_counts_become_opentelemetrys() -> None:
    registry = CollectorRegistry()
    Counter("paid", "Paid.", ["state"], registry=registry).labels("COMPLETED").inc(7)
    Gauge("open", "Open.", registry=registry).set(2.5)
    seconds = Histogram("took_seconds", "Took.", ["op"], buckets=(0.1, 1), registry=registry)
    for value in (0.05, 0.5, 0.6, 30):
        seconds.labels("assess").observe(value)

    found = {
        metric.name: metric.data
        for metric in as_metrics(registry.collect(), RESOURCE, since_ns=1, now_ns=2)
        .resource_metrics[0]
        .scope_metrics[0]
        .metrics
    }

    (paid,) = found["paid_total"].data_points
    (opened,) = found["open"].data_points
    (took,) = found["took_seconds"].data_points
    assert (paid.value, dict(paid.attributes or {}), found["paid_total"].is_monotonic) == (
        7,
        {"state": "COMPLETED"},
        True,
    )
    assert opened.value == 2.5
    assert (took.bucket_counts, took.explicit_bounds, took.count) == ([1, 2, 1], [0.1, 1.0], 4)
    assert took.sum == pytest.approx(31.15)


async def test_a_collector_that_is_lost_is_complained_of_once_and_counted(receiver: Receiver) -> None:
    failed = spans_told("failed")
    with structlog.testing.capture_logs() as logs:
        sending = telemetry(receiver.url)
        tracer = installed()
        assert tracer is not None
        first = a_span()
        tracer.finish(first)
        await asyncio.to_thread(
            receiver.wait_until,
            lambda: receiver.spans(first.trace_id) and receiver.points("payflow_spans_total"),
            seconds=5,
        )
        receiver.refuses_with = 400
        for number in range(1, 4):
            pushes = pushes_failed()
            tracer.finish(a_span())
            # Spans and metrics go their own ways: that one was refused says nothing of the other.
            await until(lambda number=number: spans_told("failed") - failed == number)
            await until(lambda pushes=pushes: pushes_failed() > pushes)
        receiver.refuses_with = 0
        wanted = a_span()
        tracer.finish(wanted)
        await asyncio.to_thread(receiver.wait_until, lambda: receiver.spans(wanted.trace_id), seconds=5)
        await until(lambda: [line["event"] for line in logs].count("otlp.works") == 2)
        sending.stop()

    told = [(line["event"], line["signal"]) for line in logs if line["event"].startswith("otlp.")]
    assert sorted(told) == [
        ("otlp.failing", "metrics"),
        ("otlp.failing", "traces"),
        ("otlp.works", "metrics"),
        ("otlp.works", "traces"),
    ]
    assert {line["log_level"] for line in logs if line["event"] == "otlp.failing"} == {"warning"}
    assert spans_told("failed") - failed == 3


async def test_a_collector_that_never_was_there_is_waited_for_without_a_warning() -> None:
    failed = spans_told("failed")
    with structlog.testing.capture_logs() as logs:
        sending = telemetry(f"http://127.0.0.1:{a_closed_port()}")
        tracer = installed()
        assert tracer is not None
        tracer.finish(a_span())
        await until(lambda: spans_told("failed") > failed)
        await until(lambda: ("otlp.waiting", "traces") in [(line["event"], line.get("signal")) for line in logs])
        sending.stop()

    told = [(line["event"], line["log_level"]) for line in logs if line["event"].startswith("otlp.")]
    assert ("otlp.waiting", "info") in told
    assert {level for _, level in told} == {"info"}


async def test_metrics_are_not_sent_where_only_traces_are_wanted(receiver: Receiver) -> None:
    sending = telemetry(receiver.url, metrics_pause_s=0)
    tracer = installed()
    assert tracer is not None
    span = a_span()
    tracer.finish(span)

    await asyncio.to_thread(receiver.wait_until, lambda: receiver.spans(span.trace_id), seconds=5)
    sending.stop()

    assert receiver.points("payflow_spans_total") == []


async def test_a_collector_that_does_not_answer_delays_nobody_and_does_not_hold_a_stop_up() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    sending = telemetry(f"http://127.0.0.1:{listener.getsockname()[1]}")
    tracer = installed()
    assert tracer is not None
    await asyncio.sleep(0.3)  # by now a sending waits for an answer that does not come

    spans = [a_span() for _ in range(500)]
    began_at = time.perf_counter()
    for span in spans:
        tracer.finish(span)
    recorded_s = time.perf_counter() - began_at
    sending.stop()
    stopped_s = time.perf_counter() - began_at - recorded_s
    listener.close()

    # The collector would be waited for ten seconds.
    assert recorded_s < 1.0
    assert stopped_s < 5.0


def test_what_does_not_fit_into_the_queue_is_dropped_and_counted() -> None:
    dropped = spans_told("dropped")
    exporter = OTLPSpanExporter(endpoint=f"http://127.0.0.1:{a_closed_port()}/v1/traces", timeout=0.2)
    queue = SpanQueue(exporter=exporter, resource=RESOURCE, tell=lambda _: None, queue_max=10, pause_s=60)

    for _ in range(25):
        queue.put(a_span())
    queue.stop(within_s=2)

    assert spans_told("dropped") - dropped == 15


def test_a_trace_is_printed_as_a_tree(receiver: Receiver) -> None:
    root, child = a_span(), a_span()
    root.parent_id, child.trace_id, child.parent_id = "", root.trace_id, root.span_id
    child.name, child.kind = "risk/assess", Kind.SERVER
    child.set("payflow.risk.level", "HIGH")
    child.fail("UNKNOWN_OUTCOME")
    exporter = OTLPSpanExporter(endpoint=f"{receiver.url}/v1/traces")
    queue = SpanQueue(exporter=exporter, resource=RESOURCE, tell=lambda _: None, pause_s=60)
    queue.put(child)
    queue.put(root)
    queue.stop(within_s=5)

    lines = tree_of(receiver.spans(root.trace_id))

    assert lines[0] == f"trace {root.trace_id}"
    assert lines[1].startswith("  confirm risk/assess [CLIENT] 5.0 ms")
    assert lines[2].startswith("    confirm risk/assess [SERVER] 5.0 ms ERROR UNKNOWN_OUTCOME risk.level=HIGH")
