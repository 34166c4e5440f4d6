"""Runs the shipped configuration of collector and Jaeger with the program itself: `python traces.py JAEGER`.

JAEGER is the binary of Jaeger 2 (`go build ./cmd/jaeger` in its source), which is built on the OpenTelemetry Collector
and has all parts that collector.yaml uses. Two of it are started: one as the collector, one as Jaeger. Addresses are
changed on the command line, for both listen on this machine here. logs.yaml needs the contrib distribution, and is
not run.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.support.ports import free_ports

ROOT: Final = Path(__file__).resolve().parents[3]
DEPLOY: Final = ROOT / "deploy"
QUIET, FAILED, REVIEWED, SLOW = 3000, 7, 3, 2
OTLP, COLLECTED, SPANS, OWN, HEALTH, STORED, QUERY, JAEGER_HEALTH = free_ports(8)
SET: Final = "service.telemetry.metrics.readers"


def main(program: str) -> int:
    """Send traces of four kinds, and look at what became of them. Raises AssertionError."""
    with jaeger(program), collector(program):
        send(traces())
        time.sleep(12)  # the decision about a trace waits five seconds, and batches one
        kept = stored()
        counted = ask(f"http://127.0.0.1:{SPANS}/metrics")
    kinds = [kind_of(trace) for trace in kept]
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))})
    assert kinds.count("failed") == FAILED, "an error was not kept"
    assert kinds.count("reviewed") == REVIEWED, "a review was not kept"
    assert kinds.count("slow") == SLOW, "a slow request was not kept"
    assert 0 < kinds.count("quiet") < QUIET * 0.9, "the rest was not bounded"
    assert "4111111111111111" not in json.dumps(kept), "a card number got through the fence"
    assert "hunter2" not in json.dumps(kept), "a password got through the fence"
    calls = sum(float(line.split()[-1]) for line in counted.splitlines() if re.match(r"traces_\S*calls_total\{", line))
    assert calls == QUIET + FAILED + REVIEWED + SLOW, f"{calls} calls were counted"
    print("The fence held, every span was counted, and what is worth keeping was kept.")
    return 0


def traces() -> list[dict[str, Any]]:
    """One span each: most are quiet, some fail, wait for a review or are slow; all carry what must not be kept."""
    kinds = ["quiet"] * QUIET + ["failed"] * FAILED + ["reviewed"] * REVIEWED + ["slow"] * SLOW
    return [span(kind) for kind in kinds]


def span(kind: str) -> dict[str, Any]:
    began_ns = time.time_ns()
    attributes = {"kind": kind, "card.pan": "4111111111111111", "user_password": "hunter2"}
    if kind == "reviewed":
        attributes["payflow.state"] = "UNDER_REVIEW"
    return {
        "traceId": secrets.token_hex(16),
        "spanId": secrets.token_hex(8),
        "name": "confirm",
        "kind": 2,
        "startTimeUnixNano": str(began_ns),
        "endTimeUnixNano": str(began_ns + (1_500_000_000 if kind == "slow" else 3_000_000)),
        "attributes": [{"key": key, "value": {"stringValue": value}} for key, value in attributes.items()],
        "status": {"code": 2 if kind == "failed" else 0},
    }


def send(spans: list[dict[str, Any]]) -> None:
    """OTLP over HTTP, in lots of 200."""
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "payflow-test"}}]}
    for first in range(0, len(spans), 200):
        lot = {"resource": resource, "scopeSpans": [{"spans": spans[first : first + 200]}]}
        request = urllib.request.Request(
            f"http://127.0.0.1:{COLLECTED}/v1/traces",
            data=json.dumps({"resourceSpans": [lot]}).encode(),
            headers={"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=30).close()


def stored() -> list[dict[str, Any]]:
    """The traces that Jaeger kept."""
    answer = ask(f"http://127.0.0.1:{QUERY}/api/traces?service=payflow-test&limit=5000&lookback=1h")
    return list(json.loads(answer)["data"])


def kind_of(trace: dict[str, Any]) -> str:
    (only,) = trace["spans"]
    return str(next(tag["value"] for tag in only["tags"] if tag["key"] == "kind"))


@contextmanager
def jaeger(program: str) -> Iterator[None]:
    """Jaeger with its shipped configuration."""
    changes = (
        f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{STORED}",
        f"extensions.healthcheckv2.http.endpoint=127.0.0.1:{JAEGER_HEALTH}",
        f"extensions.jaeger_query.http.endpoint=127.0.0.1:{QUERY}",
        "extensions.jaeger_query.grpc.endpoint=127.0.0.1:0",
        "service.telemetry.metrics.level=none",
    )
    config = DEPLOY / "jaeger" / "jaeger.yaml"
    environ = {"JAEGER_UI_CONFIG": str(DEPLOY / "jaeger" / "ui.json")}
    with running(program, config, changes, environ, port=JAEGER_HEALTH):
        yield


@contextmanager
def collector(program: str) -> Iterator[None]:
    """The collector with its shipped configuration, but for the logs."""
    changes = (
        f"receivers.otlp.protocols.grpc.endpoint=127.0.0.1:{OTLP}",
        f"receivers.otlp.protocols.http.endpoint=127.0.0.1:{COLLECTED}",
        f"exporters.prometheus.endpoint=127.0.0.1:{SPANS}",
        f"extensions.healthcheckv2.http.endpoint=127.0.0.1:{HEALTH}",
        "connectors.spanmetrics.metrics_flush_interval=1s",
        f"{SET}=[{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {OWN}}}}}}}}}]",
    )
    environ = {"JAEGER_ENDPOINT": f"127.0.0.1:{STORED}"}
    with running(program, DEPLOY / "otel" / "collector.yaml", changes, environ, port=HEALTH):
        yield


@contextmanager
def running(
    program: str, config: Path, changes: tuple[str, ...], environ: dict[str, str], *, port: int
) -> Iterator[None]:
    """The program until the end of the block. Raises AssertionError with what it said when it is not healthy soon."""
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [program, f"--config={config}", *(f"--set={change}" for change in changes)],
            env={**os.environ, **environ},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 60
            while not is_healthy(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise AssertionError(log.read()[-4000:])
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            process.wait(20)


def is_healthy(port: int) -> bool:
    try:
        ask(f"http://127.0.0.1:{port}/status")
    except OSError:
        return False
    return True


def ask(url: str) -> str:
    with urllib.request.urlopen(url, timeout=20) as response:
        return str(response.read().decode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
