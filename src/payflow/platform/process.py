"""One service process from its first line to its last: wire, serve, drain, close."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager

import structlog
import uvloop

from payflow.kernel.errors import PayflowError
from payflow.platform.http.admission import Admission
from payflow.platform.http.asgi import ASGIApp, Receive, Scope, Send, bytes_response, header, read_body, send_response
from payflow.platform.http.edge import INTERNAL_BODY_MAX_BYTES, RPC_PREFIX, EdgeLayer, never
from payflow.platform.http.errors import MethodNotAllowed, NotFound, UnreadableBody
from payflow.platform.http.health import HEALTH_PATHS, HealthRoutes
from payflow.platform.http.server import serve
from payflow.platform.http.turn_away import TurnAway
from payflow.platform.measures import tidy_exposition
from payflow.platform.rpc.client import DEADLINE_HEADER
from payflow.platform.rpc.identity import Verifier
from payflow.platform.rpc.server import RpcServer, WireError
from payflow.platform.service import Runtime, Service, run_forever
from payflow.platform.settings import SettingsError
from payflow.platform.telemetry import configure_logging
from payflow.platform.tracing import installed

log = structlog.get_logger(__name__)

Build = Callable[[Runtime], Awaitable[Service]]

_MSGPACK = b"application/msgpack"


class ProcessApp:
    """The ASGI application of a process: private operations first, then the service's own routes."""

    def __init__(self, *, service: Service, rpc: RpcServer, admission: Admission, rpc_port: int | None) -> None:
        self._own = service.app
        self._rpc_port = rpc_port
        self._rpc = rpc
        self._answer_rpc = admission.wrap(self._rpc_app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith(RPC_PREFIX) and self._is_private(scope):
            await self._answer_rpc(scope, receive, send)
        elif self._own is not None:
            await self._own(scope, receive, send)
        else:
            raise NotFound

    def _is_private(self, scope: Scope) -> bool:
        """Whether the request came by the process's own port; private operations do not exist on a public one."""
        return self._rpc_port is None or (scope.get("server") or ("", None))[1] == self._rpc_port

    async def _rpc_app(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = self._rpc.route_for(scope["path"])
        if route is None:
            raise NotFound
        if scope["method"] != "POST":
            raise MethodNotAllowed(allow=("POST",))
        authorization = header(scope, b"authorization")
        self._rpc.check_caller(route, "" if authorization is None else authorization.decode("latin-1"))
        body = await read_body(scope, receive, limit_bytes=INTERNAL_BODY_MAX_BYTES)
        deadline = header(scope, DEADLINE_HEADER.encode())
        try:
            answer = await self._rpc.answer(
                route,
                body,
                None if deadline is None else deadline.decode("latin-1"),
                traceparent=header(scope, b"traceparent"),
            )
        except WireError as error:
            raise UnreadableBody(str(error)) from error
        await send_response(send, bytes_response(200, answer, content_type=_MSGPACK))


def make_app(*, runtime: Runtime, service: Service) -> EdgeLayer:
    """The complete application of a process: edge, health, admission, private operations, own routes."""
    common = runtime.common
    rpc = RpcServer(
        verifier=Verifier.load(service=runtime.service, directory=runtime.required_setting("service_keys_dir"))
    )
    for contract, implementation in service.implementations:
        rpc.add(contract, implementation)
    admission = Admission(common.rpc_batches_max, common.rpc_batches_max * 4, name="rpc")
    own_port = common.port if service.is_public and common.port else None
    app: ASGIApp = ProcessApp(service=service, rpc=rpc, admission=admission, rpc_port=own_port)
    health = HealthRoutes(
        runtime.service,
        service.checks,
        service.required,
        metrics_ports=None if own_port is None else {own_port},
    )
    return EdgeLayer(
        health.before(app),
        service=runtime.service,
        public=service.is_public,
        bounds_own_body=service.bounds_own_body,
        turn_away=turn_away_of(service),
        is_sampled=tracer.sampler.take if (tracer := installed()) is not None else never,
    )


@asynccontextmanager
async def running(runtime: Runtime, build: Build) -> AsyncIterator[EdgeLayer]:
    """Wire a service and keep its background duties going; everything is stopped and closed at the end."""
    duties: list[asyncio.Task[None]] = []
    try:
        service = await build(runtime)
        app = make_app(runtime=runtime, service=service)
        work_of = service.background | runtime.duties
        duties = [asyncio.create_task(run_forever(name, work)) for name, work in work_of.items()]
        yield app
    finally:
        for duty in duties:
            duty.cancel()
        await asyncio.gather(*duties, return_exceptions=True)
        await runtime.close()


def turn_away_of(service: Service) -> TurnAway | None:
    """Health and private operations are always let in."""
    if service.is_full is None:
        return None
    return TurnAway(service.is_full, lets_in=(*(path.encode() for path in sorted(HEALTH_PATHS)), RPC_PREFIX.encode()))


async def _serve_edge(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    drain_s: float,
    turn_away: TurnAway | None,
    on_ready: Callable[[], None] | None,
) -> None:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await app(scope, receive, send)

    await serve(application, sockets, drain_s=drain_s, turn_away=turn_away, on_ready=on_ready)


@contextmanager
def exporting(runtime: Runtime) -> Iterator[None]:
    """Traces and metrics of this process are sent, where an endpoint is set; else nothing is even imported for it."""
    endpoint = runtime.common.otlp_endpoint_in(runtime.environ)
    if not endpoint:
        yield
        return
    from payflow.platform.otlp import Telemetry

    telemetry = Telemetry(
        endpoint=endpoint,
        service=runtime.service,
        instance=runtime.instance,
        env=runtime.common.env,
        traces_per_second=runtime.common.traces_per_second,
        metrics_pause_s=runtime.common.otlp_metrics_s,
    )
    try:
        yield
    finally:
        telemetry.stop()


async def run_async(
    *,
    service: str,
    instance: str,
    build: Build,
    sockets: Sequence[socket.socket],
    environ: Mapping[str, str],
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain and close."""
    runtime = Runtime(service=service, instance=instance, environ=environ)
    tidy_exposition()
    configure_logging(service=service, instance=instance, level=runtime.common.log_level)
    with exporting(runtime):
        async with running(runtime, build) as app:
            log.info("process.ready", pid=os.getpid())
            await _serve_edge(app, sockets, drain_s=runtime.common.drain_s, turn_away=app.turn_away, on_ready=on_ready)
            # What is still to be closed has limits of its own: a further signal would only break it off in the middle.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
    log.info("process.stopped")


def run(
    *,
    service: str,
    instance: str,
    module: str,
    sockets: Sequence[socket.socket],
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Run one service in this process, on sockets that are bound already; returns after the drain. `on_ready` is called
    once requests are taken.

    The module's `build(runtime)` wires the service. A wrong setting or an unreachable part ends the process with one
    line on stderr and exit code 1; the supervisor starts it again.
    """
    build: Build = importlib.import_module(module).build
    try:
        uvloop.run(
            run_async(
                service=service,
                instance=instance,
                build=build,
                sockets=sockets,
                environ=os.environ,
                on_ready=on_ready,
            )
        )
    except (SettingsError, PayflowError, OSError) as error:
        print(f"{instance} did not start: {error}", file=sys.stderr, flush=True)
        raise SystemExit(1) from error
