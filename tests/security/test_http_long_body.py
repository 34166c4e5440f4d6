"""A route that allows a long body gets it as long as it comes at a pace; nobody else's limits change."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from payflow.platform.http.asgi import Receive, Scope, Send, json_response, read_body, send_response
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.protocol import allow_large_body
from tests.security.http_live import HOST, running

MAX = 1024 * 1024
LIMITS = ConnectionLimits(body_s=1.0, body_pace_bytes=1000, body_wire_bytes_max=128 * 1024)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/file":
        allow_large_body(scope, bytes_max=MAX)
    body = await read_body(scope, receive, limit_bytes=MAX)
    await send_response(send, json_response(200, b"%d" % len(body)))


@contextmanager
def connected() -> Iterator[socket.socket]:
    layer = EdgeLayer(app, service="demo", public=True, bounds_own_body=frozenset({"/file", "/same-limits"}))
    with running(layer, limits=LIMITS) as live, socket.create_connection(("127.0.0.1", live.port), timeout=10) as sock:
        yield sock


def head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\n".encode() + HOST + f"Content-Length: {length}\r\n\r\n".encode()


def status_of(sock: socket.socket) -> bytes:
    return sock.recv(65536).split(b" ", 2)[1]


def test_a_long_body_that_keeps_its_pace_may_take_longer_than_a_short_one() -> None:
    with connected() as sock:
        sock.sendall(head("/file", 60_000))
        for _ in range(12):
            sock.sendall(b"x" * 5000)
            time.sleep(0.25)

        assert status_of(sock) == b"200"


@pytest.mark.parametrize("path", ["/file", "/same-limits"])
def test_a_body_that_drips_is_given_up(path: str) -> None:
    with connected() as sock:
        sock.sendall(head(path, 60_000))
        began_at = time.monotonic()
        answer = b""
        sock.settimeout(0.2)
        while not answer and time.monotonic() < began_at + 8:
            try:
                sock.sendall(b"x" * 20)
                answer = sock.recv(65536)
            except TimeoutError:
                continue

        assert b" 408 " in answer.split(b"\r\n")[0]


def test_only_who_was_allowed_sends_more_than_the_connection_takes() -> None:
    with connected() as sock:
        sock.sendall(head("/file", 500_000) + b"x" * 500_000)
        assert status_of(sock) == b"200"
    with connected() as sock:
        sock.sendall(head("/other", 500_000))
        assert status_of(sock) == b"413"
    with connected() as sock:
        sock.sendall(head("/same-limits", 500_000))
        answer = b""
        try:
            for _ in range(50):
                sock.sendall(b"x" * 10_000)
                time.sleep(0.01)
        except OSError:
            pass
        answer = sock.recv(65536)
        assert answer.split(b" ", 2)[1] == b"413"
