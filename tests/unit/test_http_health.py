"""The four open addresses, without a socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter

from payflow.platform.http import health
from payflow.platform.http.asgi import Message
from payflow.platform.http.errors import MethodNotAllowed, NotFound
from payflow.platform.http.health import HealthRoutes

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


async def fine() -> None:
    return None


async def broken() -> None:
    raise ConnectionRefusedError("postgres://user:secret@host")


async def no() -> bool:
    return False


async def hanging() -> None:
    await asyncio.sleep(60)


async def get(
    app: HealthRoutes, path: str, method: str = "GET", port: int = 3003, accept: bytes = b"*/*"
) -> tuple[int, bytes]:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("a health address reads no body")

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "method": method, "server": ("127.0.0.1", port)}
    await app(scope | {"headers": [(b"accept", accept)]}, receive, send)
    return sent[0]["status"], sent[1]["body"]


def routes(required: set[str], **checks: Callable[[], Awaitable[object]]) -> HealthRoutes:
    return HealthRoutes("confirm", checks, required, now=lambda: NOW)


async def test_health_names_every_dependency_and_is_encoded_without_blanks() -> None:
    status, body = await get(routes({"postgres"}, postgres=fine, audit=fine), "/health")

    assert status == 200
    assert b'"status":"healthy"' in body
    assert json.loads(body) == {
        "status": "healthy",
        "service": "confirm",
        "dependencies": {"postgres": "healthy", "audit": "healthy"},
        "timestamp": "2026-01-02T03:04:05Z",
    }


@pytest.mark.parametrize("failing", [broken, no])
async def test_a_required_dependency_that_fails_is_503_and_says_no_more_than_its_name(
    failing: Callable[[], Awaitable[object]],
) -> None:
    app = routes({"postgres"}, postgres=failing, audit=fine)

    status, body = await get(app, "/health")
    ready, ready_body = await get(app, "/ready")
    live, _ = await get(app, "/live")

    assert (status, json.loads(body)["status"]) == (503, "unhealthy")
    assert json.loads(body)["dependencies"] == {"postgres": "unhealthy", "audit": "healthy"}
    assert b"secret" not in body
    assert (ready, json.loads(ready_body)["status"]) == (503, "not_ready")
    assert live == 200


async def test_another_dependency_that_fails_is_reported_and_not_503() -> None:
    app = routes({"postgres"}, postgres=fine, audit=broken)

    status, body = await get(app, "/health")
    ready, _ = await get(app, "/ready")

    document: dict[str, Any] = json.loads(body)
    assert (status, ready, document["status"]) == (200, 200, "healthy")
    assert document["dependencies"]["audit"] == "unhealthy"


async def test_checks_run_side_by_side_and_one_that_hangs_is_unhealthy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CHECK_TIMEOUT_S", 0.1)
    clock = asyncio.get_running_loop().time
    started = clock()

    status, body = await get(routes({"one"}, one=hanging, two=hanging, three=fine), "/health")

    assert status == 503
    assert json.loads(body)["dependencies"] == {"one": "unhealthy", "two": "unhealthy", "three": "healthy"}
    assert clock() - started < 0.19


async def test_however_many_ask_the_checks_run_once_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "CACHED_FOR_S", 0.1)
    calls = 0

    async def counted() -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0.01)

    app = routes({"postgres"}, postgres=counted)

    await asyncio.gather(*(get(app, "/health") for _ in range(20)))
    await get(app, "/ready")
    within = calls
    await asyncio.sleep(0.15)
    await get(app, "/health")

    assert (within, calls) == (1, 2)


async def test_one_who_stops_waiting_does_not_stop_the_check_for_others() -> None:
    released = asyncio.Event()
    app = routes({"postgres"}, postgres=released.wait)
    impatient = asyncio.create_task(get(app, "/health"))
    patient = asyncio.create_task(get(app, "/health"))
    await asyncio.sleep(0)

    impatient.cancel()
    await asyncio.sleep(0)
    released.set()

    assert (await patient)[0] == 200


async def test_metrics_are_told_on_private_ports_only() -> None:
    registry = CollectorRegistry()
    Counter("payments", "Payments.", registry=registry).inc(3)
    app = HealthRoutes("gateway", {}, set(), metrics_ports={3001}, registry=registry)

    status, body = await get(app, "/metrics", port=3001)

    assert status == 200
    assert b"payments_total 3.0" in body
    with pytest.raises(NotFound):
        await get(app, "/metrics", port=8080)


@pytest.mark.parametrize(
    ("accept", "has_exemplars"),
    [
        (b"application/openmetrics-text;version=1.0.0,text/plain;q=0.5", True),
        (b"application/openmetrics-text;version=nonsense", True),
        (b"text/plain;version=0.0.4", False),
        (b"*/*", False),
        (b"", False),
    ],
)
async def test_exemplars_are_told_to_who_reads_openmetrics(accept: bytes, has_exemplars: bool) -> None:
    registry = CollectorRegistry()
    Counter("payments", "Payments.", registry=registry).inc(3, {"trace_id": "4bf9"})
    app = HealthRoutes("confirm", {}, set(), registry=registry)

    status, body = await get(app, "/metrics", accept=accept)

    assert status == 200
    assert (b'# {trace_id="4bf9"} 3.0' in body) is has_exemplars
    assert body.endswith(b"# EOF\n") is has_exemplars


async def test_other_methods_and_paths_are_refused() -> None:
    app = routes(set())

    with pytest.raises(MethodNotAllowed) as wrong_method:
        await get(app, "/health", method="POST")
    with pytest.raises(NotFound):
        await get(app, "/healthy")

    assert wrong_method.value.extra["allow"] == ["GET", "HEAD"]


def test_a_required_dependency_without_a_check_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="kafka"):
        routes({"kafka"}, postgres=fine)
