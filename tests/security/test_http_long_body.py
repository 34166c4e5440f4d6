"""A route that allows a long body gets it as long as it comes at a pace; nobody else's limits change."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from payflow.platform.http.asgi import Receive, Scope, Send, json_response, read_body, send_response
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.protocol import allow_large_body, name_in_refusals
from tests.fakes_gateway import GatewayWorld
from tests.security.http_live import HOST, Answer, read_answer, running
from tests.unit.test_gateway_bulk import PATH, file_of

MAX = 1024 * 1024
LIMITS = ConnectionLimits(body_s=1.0, body_pace_bytes=1000, body_wire_bytes_max=128 * 1024)


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["path"] == "/file":
        allow_large_body(scope, bytes_max=MAX)
        name_in_refusals(scope, order="o-1")
    body = await read_body(scope, receive, limit_bytes=MAX)
    await send_response(send, json_response(200, b"%d" % len(body)))


@contextmanager
def connected() -> Iterator[socket.socket]:
    layer = EdgeLayer(app, service="demo", public=True, bounds_own_body=frozenset({"/file", "/same-limits"}))
    with running(layer, limits=LIMITS) as live, socket.create_connection(("127.0.0.1", live.port), timeout=10) as sock:
        yield sock


def head(path: str, length: int) -> bytes:
    return f"POST {path} HTTP/1.1\r\n".encode() + HOST + f"Content-Length: {length}\r\n\r\n".encode()


def refusal_of(sock: socket.socket) -> Answer:
    """What a body is answered that never comes."""
    answer, _ = read_answer(sock)
    assert (answer.status, answer.problem["error"]) == (408, "REQUEST_TIMEOUT")
    return answer


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


def test_what_refuses_a_body_at_the_connection_names_what_its_application_knows_it_by() -> None:
    with connected() as sock:
        sock.sendall(head("/file", 60_000) + b"x" * 5000)
        assert refusal_of(sock).problem["order"] == "o-1"


def test_a_name_is_that_of_one_request_and_not_of_the_next_one_on_its_connection() -> None:
    with connected() as sock:
        sock.sendall(head("/file", 5) + b"12345")
        assert read_answer(sock)[0].status == 200
        sock.sendall(head("/same-limits", 5) + b"1234")
        assert "order" not in refusal_of(sock).problem


def test_a_file_that_stands_still_is_refused_with_its_order_once_there_is_one(tmp_path: Path) -> None:
    world = GatewayWorld(tmp_path / "keys")
    token = asyncio.run(world.token())
    fields = f"Authorization: Bearer {token}\r\nContent-Type: application/x-ndjson\r\n".encode()
    begun, unread = b"Idempotency-Key: begun\r\n", b"Idempotency-Key: unread\r\n"
    refused = []
    with running(world.app, limits=LIMITS) as live:
        for key, lines in ((begun, 300), (unread, 3)):
            with socket.create_connection(("127.0.0.1", live.port), timeout=10) as sock:
                start = head(PATH, 1_000_000).removesuffix(b"\r\n")
                sock.sendall(start + fields + key + b"\r\n" + file_of(lines))
                refused.append(refusal_of(sock).problem)
    orders = asyncio.run(world.client.send("GET", PATH, token=token)).json["data"]

    assert [problem.get("bulk_id") for problem in refused] == [orders[0]["bulk_id"], None]
    assert len(orders) == 1
