"""A server that goes: what is under way is finished, and no request is lost to a connection that closes under it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.security.http_live import HOST, is_closed, post, read_answer

PROCESS = """
import socket, uvloop
from contextlib import asynccontextmanager
from payflow.platform.http.asgi import with_lifespan
from payflow.platform.http.health import HealthRoutes
from payflow.platform.http.server import serve
from tests.security.http_live import App

@asynccontextmanager
async def lifespan():
    yield

sock = socket.socket()
sock.bind(("127.0.0.1", 0))
ready = lambda: print(sock.getsockname()[1], flush=True)
app = HealthRoutes("demo", {}, set()).before(App())
uvloop.run(serve(with_lifespan(app, lifespan), [sock], drain_s=10, on_ready=ready))
"""


class Process:
    """A server in a process of its own, which signals reach."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self._port = port

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._port), timeout=5)

    def idle(self) -> socket.socket:
        """A connection that has carried a request."""
        sock = self.connect()
        sock.sendall(post(b"/echo", b"abc"))
        read_answer(sock)
        return sock

    def tell(self, number: signal.Signals) -> None:
        """Signal it, and wait until it takes no connections any more."""
        self.process.send_signal(number)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                self.connect().close()
            except ConnectionRefusedError:
                return
            time.sleep(0.01)
        raise AssertionError("it still takes connections")


@pytest.fixture
def server() -> Iterator[Process]:
    with started() as process:
        yield process


@contextmanager
def started() -> Iterator[Process]:
    command = [sys.executable, "-c", PROCESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield Process(process, int(process.stdout.readline()))
            assert process.wait(5) == 0
        finally:
            process.kill()


def get(path: bytes) -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def test_after_sigterm_an_idle_connection_may_bring_one_more_request(server: Process) -> None:
    sock = server.idle()

    server.tell(signal.SIGTERM)
    sock.sendall(post(b"/echo", b"once more"))
    answer, _ = read_answer(sock)

    assert (answer.status, b'"size": 9' in answer.body) == (200, True)
    assert answer.headers["connection"] == "close"
    assert is_closed(sock)


def test_after_sigterm_a_request_that_is_half_there_is_answered(server: Process) -> None:
    sock = server.connect()
    whole = post(b"/echo", b"abc")
    sock.sendall(whole[:20])
    time.sleep(0.1)

    server.tell(signal.SIGTERM)
    sock.sendall(whole[20:])
    answer, _ = read_answer(sock)

    assert (answer.status, answer.headers["connection"]) == (200, "close")


def test_after_sigterm_an_idle_connection_that_brings_nothing_ends_soon(server: Process) -> None:
    sock = server.idle()
    began_at = time.monotonic()

    server.tell(signal.SIGTERM)

    assert is_closed(sock)
    assert server.process.wait(5) == 0
    assert 0.3 < time.monotonic() - began_at < 3


def test_after_sigint_idle_connections_end_at_once_and_what_is_under_way_is_finished(server: Process) -> None:
    idle, busy = server.idle(), server.connect()
    busy.sendall(get(b"/slow"))
    time.sleep(0.1)

    server.tell(signal.SIGINT)

    assert is_closed(idle)
    answer, _ = read_answer(busy)
    assert answer.status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_cancels_what_is_still_under_way(server: Process, number: signal.Signals) -> None:
    busy = server.connect()
    busy.sendall(get(b"/endless"))
    time.sleep(0.1)

    server.tell(number)
    began_at = time.monotonic()
    server.process.send_signal(number)

    assert server.process.wait(5) == 0
    assert time.monotonic() - began_at < 3


def test_a_server_that_drains_says_so_and_that_it_lives(server: Process) -> None:
    first, second = server.idle(), server.idle()

    server.tell(signal.SIGTERM)
    first.sendall(get(b"/ready"))
    second.sendall(get(b"/live"))

    ready, _ = read_answer(first)
    alive, _ = read_answer(second)
    assert (ready.status, ready.body) == (503, b'{"status":"draining","service":"demo"}')
    assert alive.status == 200
