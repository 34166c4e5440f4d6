"""The four addresses that every process answers without a token: /live, /ready, /health and /metrics."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

import msgspec
from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from payflow.platform.http.asgi import ASGIApp, Receive, Response, Scope, Send, bytes_response, header, json_response
from payflow.platform.http.draining import is_draining
from payflow.platform.http.errors import MethodNotAllowed, NotFound

HEALTH_PATHS: Final = frozenset({"/live", "/ready", "/health", "/metrics"})
CHECK_TIMEOUT_S: Final = 1.0
CACHED_FOR_S: Final = 1.0

# Asks one dependency a question. It is unhealthy when the check raises, answers False, or takes longer than a second.
Check: TypeAlias = Callable[[], Awaitable[object]]

_encode: Final = msgspec.json.Encoder().encode
_OPENMETRICS: Final = b"application/openmetrics-text"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class HealthRoutes:
    """An ASGI application for the four addresses. GET and HEAD only; anything else is 405, other paths are 404.

    `checks` are run side by side, at most once a second however many ask. /health and /ready are 503 only when one of
    the `required` dependencies is unhealthy, /ready also while the process drains; the others are reported. /live is
    200 as long as the process answers.
    `metrics_ports`: where given, /metrics is 404 on any other port, for processes that also listen to the public.
    Raises ValueError for a required dependency without a check.
    """

    def __init__(
        self,
        service: str,
        checks: Mapping[str, Check],
        required: Collection[str],
        *,
        metrics_ports: Collection[int] | None = None,
        registry: CollectorRegistry = REGISTRY,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        unknown = set(required) - checks.keys()
        if unknown:
            raise ValueError(f"required dependencies without a check: {sorted(unknown)}")
        self._service = service
        self._checks = dict(checks)
        self._required = frozenset(required)
        self._metrics_ports = None if metrics_ports is None else frozenset(metrics_ports)
        self._registry = registry
        self._now = now
        self._round: asyncio.Task[dict[str, str]] | None = None
        self._fresh_until = 0.0

    def before(self, app: ASGIApp) -> ASGIApp:
        """These four addresses, and `app` for everything else."""

        async def application(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"] in HEALTH_PATHS:
                await self(scope, receive, send)
            else:
                await app(scope, receive, send)

        return application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in HEALTH_PATHS or not self._is_open(scope):
            raise NotFound
        if scope["method"] not in ("GET", "HEAD"):
            raise MethodNotAllowed(allow=("GET", "HEAD"))
        if scope["path"] == "/metrics":
            response = self._metrics(scope)
        elif scope["path"] == "/ready" and is_draining(scope):
            response = json_response(503, _encode({"status": "draining", "service": self._service}))
        else:
            response = await self._answer(scope["path"])
        await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
        await send({"type": "http.response.body", "body": response.body})

    async def dependencies(self) -> dict[str, str]:
        """Each dependency's "healthy" or "unhealthy", at most a second old."""
        clock = asyncio.get_running_loop().time
        if self._round is None or (self._round.done() and clock() >= self._fresh_until):
            self._round = asyncio.create_task(self._run_checks())
            self._round.add_done_callback(self._keep)
        return await asyncio.shield(self._round)

    def _keep(self, _finished: asyncio.Task[dict[str, str]]) -> None:
        self._fresh_until = asyncio.get_running_loop().time() + CACHED_FOR_S

    async def _run_checks(self) -> dict[str, str]:
        results = await asyncio.gather(*(_is_healthy(check) for check in self._checks.values()))
        return {name: "healthy" if ok else "unhealthy" for name, ok in zip(self._checks, results, strict=True)}

    def _metrics(self, scope: Scope) -> Response:
        """In the format that is asked for: the plain one, or OpenMetrics, which has exemplars."""
        if _OPENMETRICS in (header(scope, b"accept") or b""):
            body: bytes = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            content_type = openmetrics.CONTENT_TYPE_LATEST
        else:
            body, content_type = generate_latest(self._registry), CONTENT_TYPE_LATEST
        return bytes_response(200, body, content_type=content_type.encode("ascii"))

    async def _answer(self, path: str) -> Response:
        if path == "/live":
            return json_response(200, _encode({"status": "alive", "service": self._service}))
        dependencies = await self.dependencies()
        is_able = all(dependencies[name] == "healthy" for name in self._required)
        words = ("ready", "not_ready") if path == "/ready" else ("healthy", "unhealthy")
        document: dict[str, Any] = {
            "status": words[0] if is_able else words[1],
            "service": self._service,
            "dependencies": dependencies,
            "timestamp": self._now(),
        }
        return json_response(200 if is_able else 503, _encode(document))

    def _is_open(self, scope: Scope) -> bool:
        if scope["path"] != "/metrics" or self._metrics_ports is None:
            return True
        server = scope.get("server")
        return server is not None and server[1] in self._metrics_ports


async def _is_healthy(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            return await check() is not False
    except Exception:
        return False
