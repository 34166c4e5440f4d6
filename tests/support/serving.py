"""A service's own server on a free port, over real sockets, inside a test's event loop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from payflow.platform.http.asgi import ASGIApp, with_lifespan
from payflow.platform.http.server import serve


@asynccontextmanager
async def _nothing() -> AsyncIterator[None]:
    yield


def free_socket(port: int = 0) -> socket.socket:
    """A bound socket on loopback; the system chooses the port where none is given."""
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


@asynccontextmanager
async def serving(app: ASGIApp, *, bound: socket.socket | None = None, drain_s: float = 1.0) -> AsyncIterator[str]:
    """Serve an application; yields its base URL. Stops at the end, with the drain that a stop of the process has."""
    bound = bound or free_socket()
    url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(
        serve(with_lifespan(app, _nothing), [bound], drain_s=drain_s, stop=stop, on_ready=ready.set)
    )
    try:
        async with asyncio.timeout(5):
            await ready.wait()
        yield url
    finally:
        stop.set()
        await task
