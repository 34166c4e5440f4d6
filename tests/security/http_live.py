"""A real server on a real socket, routes that show what reached them, and a client that sends any bytes."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, NamedTuple

import uvloop

from payflow.kernel.errors import Unavailable
from payflow.platform.context import current_traceparent
from payflow.platform.http.asgi import (
    ASGIApp,
    Receive,
    Scope,
    Send,
    json_response,
    read_body,
    send_response,
    with_lifespan,
)
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.errors import MethodNotAllowed, NotFound
from payflow.platform.http.health import HealthRoutes
from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.server import serve
from payflow.platform.http.turn_away import TurnAway

LIMITS = ConnectionLimits(head_s=1.0, body_s=1.0, idle_s=1.5, linger_s=1.0, connections_max=60)
HOST = b"Host: localhost\r\n"
BODY_MAX = 64 * 1024


class App:
    """A few routes that show what reached the application."""

    def __init__(self) -> None:
        self.reached: list[tuple[str, str, bytes]] = []
        self.gone = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path == "/echo":
            if scope["method"] != "POST":
                raise MethodNotAllowed(allow=["POST"])
            body = await read_body(scope, receive)
            self.reached.append((scope["method"], path, body))
            seen = {name.decode(): value.decode() for name, value in scope["headers"]}
            document = {"size": len(body), "headers": seen, "trace": current_traceparent.get()}
            await send_response(send, json_response(200, json.dumps(document).encode()))
        elif path == "/smuggled":
            self.reached.append((scope["method"], path, b""))
            await send_response(send, json_response(200, b"{}"))
        elif path == "/early":
            await send_response(send, json_response(200, b"{}"))
        elif path == "/slow":
            await asyncio.sleep(0.6)
            await send_response(send, json_response(200, b'{"slow":true}'))
        elif path == "/endless":
            await asyncio.sleep(60)
        elif path == "/wait-for-body":
            try:
                await read_body(scope, receive)
            finally:
                self.gone.set()
        elif path == "/bug":
            raise ZeroDivisionError("the customer's account DE02120300000000202051")
        elif path == "/half":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
            await send({"type": "http.response.body", "body": b"12345", "more_body": True})
            raise ZeroDivisionError
        elif path == "/unavailable":
            raise Unavailable("Later.", retry_after_s=7)
        elif path == "/foreign":
            headers = [(b"content-type", b"text/html"), (b"allow", b"PUT"), (b"set-cookie", b"a=b"), (b"server", b"x")]
            await send({"type": "http.response.start", "status": 405, "headers": headers})
            await send({"type": "http.response.body", "body": b"<h1>no", "more_body": True})
            await send({"type": "http.response.body", "body": b"</h1>"})
        elif path == "/silent":
            return
        elif path in ("/docs", "/cached"):
            headers = [(b"content-length", b"0")] + ([(b"cache-control", b"max-age=60")] if path == "/cached" else [])
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
        else:
            raise NotFound


class Live(NamedTuple):
    port: int
    app: App
    stop: threading.Event
    thread: threading.Thread


@asynccontextmanager
async def nothing_to_open() -> AsyncIterator[None]:
    yield


@contextmanager
def running(
    app: ASGIApp,
    *,
    limits: ConnectionLimits = LIMITS,
    drain_s: float = 1.0,
    routes: App | None = None,
    turn_away: TurnAway | None = None,
) -> Iterator[Live]:
    """A server on uvloop in a thread of its own."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    ready, told = threading.Event(), threading.Event()

    async def main() -> None:
        stop = asyncio.Event()
        watcher = asyncio.create_task(asyncio.to_thread(told.wait))
        watcher.add_done_callback(lambda _: stop.set())
        await serve(
            with_lifespan(app, nothing_to_open),
            [sock],
            drain_s=drain_s,
            limits=limits,
            turn_away=turn_away,
            stop=stop,
            on_ready=ready.set,
        )

    def run() -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(5)
    try:
        yield Live(port, routes or App(), told, thread)
    finally:
        told.set()
        thread.join(10)
        assert not thread.is_alive()


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes
    names: list[str]

    @property
    def problem(self) -> dict[str, Any]:
        assert self.headers["content-type"] == "application/problem+json"
        document: dict[str, Any] = json.loads(self.body)
        assert document["status"] == self.status
        return document


def connect(live: Live) -> socket.socket:
    return socket.create_connection(("127.0.0.1", live.port), timeout=5)


def read_answer(sock: socket.socket, *, rest: bytes = b"", has_body: bool = True) -> tuple[Answer, bytes]:
    data = rest
    while b"\r\n\r\n" not in data:
        more = sock.recv(65536)
        if not more:
            raise EOFError(data)
        data += more
    head, data = data.split(b"\r\n\r\n", 1)
    lines = head.decode("latin-1").split("\r\n")
    names = [line.split(": ", 1)[0] for line in lines[1:]]
    headers = dict(line.split(": ", 1) for line in lines[1:])
    length = int(headers.get("content-length", 0)) if has_body else 0
    while len(data) < length:
        more = sock.recv(65536)
        if not more:
            raise EOFError(data)
        data += more
    return Answer(int(lines[0].split(" ")[1]), headers, data[:length], names), data[length:]


def ask(live: Live, data: bytes, *, has_body: bool = True) -> Answer:
    with connect(live) as sock:
        sock.sendall(data)
        return read_answer(sock, has_body=has_body)[0]


def is_closed(sock: socket.socket, within_s: float = 3.0) -> bool:
    sock.settimeout(within_s)
    try:
        return sock.recv(1) == b""
    except ConnectionResetError:
        return True
    except TimeoutError:
        return False


def post(path: bytes, body: bytes, *headers: bytes) -> bytes:
    head = b"".join(line + b"\r\n" for line in headers)
    return b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\n%s\r\n%s" % (path, HOST, len(body), head, body)


def chunked(path: bytes, rest: bytes) -> bytes:
    return b"POST %s HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n%s" % (path, HOST, rest)


@contextmanager
def running_public_edge() -> Iterator[Live]:
    """The routes behind a public edge layer with its health addresses."""
    app = App()
    health = HealthRoutes("demo", {}, set())
    with running(EdgeLayer(health.before(app), service="demo", public=True), routes=app) as server:
        yield server
