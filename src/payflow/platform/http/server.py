"""Running an ASGI application on given sockets until it is told to stop, then letting it finish its work."""

from __future__ import annotations

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Callable, Generator, Sequence
from typing import Final, cast

import uvicorn
from prometheus_client import Gauge

from payflow.platform.http.asgi import ASGIApp
from payflow.platform.http.draining import Draining
from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.protocol import EdgeConfig, EdgeProtocol
from payflow.platform.http.turn_away import TurnAway

_BACKLOG: Final = 4096
_ROUND_S: Final = 0.5
_loop_lag: Final = Gauge(
    "payflow_loop_lag_seconds", "How late the event loop was at its last look: what one slow step costs all others."
)
# While the server drains, idle connections end soon.
_DRAINING_ROUND_S: Final = 0.1
_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


class ServerStartError(Exception):
    """The application's lifespan failed to begin; what it said is in the log."""


def server_config(
    app: ASGIApp, *, drain_s: float, limits: ConnectionLimits | None = None, turn_away: TurnAway | None = None
) -> EdgeConfig:
    """uvicorn's configuration as this product runs it.

    No proxy is trusted, no access log and no Server header are written, and uvicorn's own limits stay off: bounds are
    EdgeProtocol's and Admission's.
    """
    config = EdgeConfig(
        app,
        http=EdgeProtocol,
        ws="none",
        loop="none",
        lifespan="on",
        interface="asgi3",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=True,
        backlog=_BACKLOG,
        limit_concurrency=None,
        timeout_graceful_shutdown=math.ceil(drain_s),
    )
    config.limits = limits or ConnectionLimits()
    config.turn_away = turn_away
    config.draining = Draining()
    return config


async def serve(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    *,
    drain_s: float,
    limits: ConnectionLimits | None = None,
    turn_away: TurnAway | None = None,
    stop: asyncio.Event | None = None,
    on_ready: Callable[[], None] | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until `stop` is set where one is given; then drain.

    Draining: the sockets are closed, requests in flight are finished and their connections told `Connection: close`.
    Idle connections end at once; after SIGTERM, which says that another process goes on in this one's place, they are
    left for a moment in which one more request may come, so that none is lost to a connection that closes as it is
    sent. What is still running after `drain_s` (rounded up to whole seconds), or at a second signal, is cancelled.
    `sockets` are bound and become the server's. `turn_away`: what is refused at the connection while the process is
    full; None: nothing. `on_ready` is called once requests are taken. Raises ServerStartError.
    """
    server = _Server(server_config(app, drain_s=drain_s, limits=limits, turn_away=turn_away), on_ready)
    told = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    if stop is None:
        for number in _STOP_SIGNALS:
            loop.add_signal_handler(number, server.signalled, number, told)
    helpers = [asyncio.create_task(server.stop_when(told)), asyncio.create_task(server.keep_deadlines())]
    try:
        await server.serve(list(sockets))
    except SystemExit:
        raise ServerStartError("the application did not start") from None
    finally:
        await server.end_rest()
        for helper in helpers:
            helper.cancel()
        if stop is None:
            for number in _STOP_SIGNALS:
                loop.remove_signal_handler(number)


class _Server(uvicorn.Server):
    def __init__(self, config: EdgeConfig, on_ready: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn raises the signal again when it is done, which would end the process before it has tidied up.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self._on_ready is not None:
            self._on_ready()

    def signalled(self, number: signal.Signals, told: asyncio.Event) -> None:
        """The first signal begins the drain, a second one ends it."""
        if told.is_set():
            self.hurry()
            return
        cast(EdgeConfig, self.config).draining.is_gentle = number is signal.SIGTERM
        told.set()

    def hurry(self) -> None:
        """Cancel what is still under way; it may say a last word."""
        self.force_exit = True
        for task in self.server_state.tasks:
            task.cancel()
        asyncio.get_running_loop().call_later(_ROUND_S, self._cut_all)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        cast(EdgeConfig, self.config).draining.is_on = True
        await super().shutdown(sockets)

    async def stop_when(self, told: asyncio.Event) -> None:
        """Begin to drain when told."""
        await told.wait()
        self.should_exit = True

    async def keep_deadlines(self) -> None:
        """Let every connection look at its deadlines, twice a second."""
        loop = asyncio.get_running_loop()
        while True:
            round_s = _DRAINING_ROUND_S if cast(EdgeConfig, self.config).draining.is_on else _ROUND_S
            due_at = loop.time() + round_s
            await asyncio.sleep(round_s)
            now = loop.time()
            _loop_lag.set(max(0.0, now - due_at))
            for connection in cast("list[EdgeProtocol]", list(self.server_state.connections)):
                connection.check_deadline(now)

    async def end_rest(self) -> None:
        """After the drain: let cancelled requests say their last word, then cut what is left."""
        if self.server_state.tasks:
            await asyncio.wait(self.server_state.tasks, timeout=_ROUND_S)
        self._cut_all()

    def _cut_all(self) -> None:
        for connection in cast("list[EdgeProtocol]", list(self.server_state.connections)):
            connection.cut()
