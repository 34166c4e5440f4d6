"""What a full process reads at one glance: answered as if it had come byte by byte, and kept by nobody."""

from __future__ import annotations

import asyncio
import gc
import math
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence

import pytest
from uvicorn.server import ServerState

from payflow.platform.http.admission import Admission
from payflow.platform.http.asgi import ASGIApp
from payflow.platform.http.glance import Glance, Glancer
from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.protocol import EdgeProtocol
from payflow.platform.http.server import server_config
from payflow.platform.http.turn_away import TurnAway
from tests.security.http_live import App, post

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
PLAIN = post(b"/echo?x=1", b"{}", b"traceparent: " + TRACE)
HEAD = b"POST /echo HTTP/1.1\r\nHost: a\r\n"


class Wire(asyncio.Transport):
    """Remembers what is sent; `on_full` is called when nobody has taken so many bytes."""

    def __init__(self, *, holds_bytes: float = math.inf, on_full: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.sent = b""
        self._holds_bytes = holds_bytes
        self._on_full = on_full
        self._is_closed = False

    def write(self, data: bytes) -> None:
        was_full = len(self.sent) > self._holds_bytes
        self.sent += data
        if not was_full and len(self.sent) > self._holds_bytes:
            self._on_full()

    def is_closing(self) -> bool:
        return self._is_closed

    def close(self) -> None:
        self._is_closed = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.sent += b" and no more"

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Connection:
    """A connection to a full process, and what it was told, without what differs from time to time."""

    def __init__(
        self, turn_away: TurnAway | None = None, app: ASGIApp | None = None, *, holds_bytes: float = math.inf
    ) -> None:
        full = turn_away or TurnAway(lambda _: True, lets_in=(b"/live",))
        self._wire = Wire(holds_bytes=holds_bytes, on_full=lambda: self._protocol.pause_writing())
        config = server_config(app or App(), drain_s=1.0, turn_away=full)
        config.load()
        self._protocol = EdgeProtocol(config, ServerState(), {})
        self._protocol.connection_made(self._wire)

    def take(self, data: bytes) -> None:
        self._protocol.data_received(data)

    @property
    def told(self) -> bytes:
        end = b" and closed" if self._wire.is_closing() else b""
        return re.sub(rb"[0-9a-f]{16,32}", b"#", self._wire.sent) + end


def texts_in(value: object) -> Iterator[bytes]:
    """The texts that it holds, however deep."""
    if isinstance(value, str):
        yield value.encode()
    elif isinstance(value, bytes):
        yield value
    elif isinstance(value, Mapping):
        yield from texts_in([*value.keys(), *value.values()])
    elif isinstance(value, Sequence):
        for each in value:
            yield from texts_in(each)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        PLAIN + PLAIN,
        PLAIN + b"GET /x HT",
        PLAIN + b"\r\n",
        b"\r\n" + PLAIN,
        PLAIN[:-1],
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        HEAD + b"Transfer-Encoding: xchunked\r\n\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        HEAD + b"Expect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        HEAD + b"Connection: close\r\n\r\n",
        HEAD + b"Host: b\r\n\r\n",
        HEAD + b"X : y\r\n\r\n",
        HEAD + b"X: y\x00z\r\n\r\n",
        HEAD + b"X: y\r\n folded\r\n\r\n",
        HEAD + b"X: y\r\n" * 100 + b"\r\n",
        HEAD + b"X: " + b"y" * 40_000 + b"\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"POST /echo HTTP/1.1\r\n\r\n",
        b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.0\r\nHost: a\r\n\r\n",
        b"POST /echo HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        b"POST /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST /a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST http://a/echo HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_read_at_a_glance_is_answered_as_if_it_came_byte_by_byte(data: bytes) -> None:
    at_once, in_pieces = Connection(), Connection()

    at_once.take(data)
    for place in range(len(data)):
        in_pieces.take(data[place : place + 1])
    await asyncio.sleep(0.05)

    assert at_once.told == in_pieces.told
    # And nothing of it is left that would make something else of what comes next.
    at_once.take(PLAIN)
    in_pieces.take(PLAIN)
    await asyncio.sleep(0.05)
    assert at_once.told == in_pieces.told


async def test_connections_take_turns_without_a_trace_of_one_in_the_others_answer() -> None:
    turn_away = TurnAway(lambda _: True, lets_in=())
    halves = [Connection(turn_away) for _ in range(3)]
    for index, half in enumerate(halves):
        half.take(post(b"/half/%d" % index, b"12345")[:-3])

    whole = Connection(turn_away)
    whole.take(PLAIN)
    for half in halves:
        half.take(b"345")

    assert whole.told.count(b'"instance":"/echo"') == 1
    assert [b'"instance":"/half/%d"' % index in half.told for index, half in enumerate(halves)] == [True] * 3


@pytest.mark.parametrize("requests", [1, 500], ids=["one by one", "many at once"])
async def test_who_sends_on_and_does_not_read_is_not_answered_for_ever(requests: int) -> None:
    connection = Connection(holds_bytes=8_000)

    for _ in range(500 // requests):
        connection.take(PLAIN * requests)

    assert connection.told.count(b"HTTP/1.1 503 ") < 20
    assert b"connection: close\r\n" in connection.told.lower()


async def test_what_could_not_be_read_at_a_glance_leaves_nothing_to_the_collector() -> None:
    glancer = Glancer()
    gc.collect()
    gc.disable()
    try:
        for _ in range(10):
            glancer.read(PLAIN[:-1], ConnectionLimits())
        assert gc.collect() == 0
    finally:
        gc.enable()


async def test_a_burst_of_health_checks_takes_no_place() -> None:
    admission = Admission(1, 0)
    turn_away = TurnAway(admission.is_full, lets_in=(b"/live",))
    checks = [Connection(turn_away) for _ in range(3)]

    for check in checks:
        check.take(b"GET /live HTTP/1.1\r\nHost: a\r\n\r\n")

    assert not turn_away.is_full


async def test_what_comes_at_once_finds_as_many_places_as_there_are_and_the_rest_is_told_at_the_connection() -> None:
    admission, app = Admission(2, 1), App()
    turn_away = TurnAway(admission.is_full, lets_in=())
    connections = [Connection(turn_away, admission.wrap(app)) for _ in range(6)]

    for connection in connections:
        connection.take(PLAIN)
    told_at_once = [connection.told.startswith(b"HTTP/1.1 503 ") for connection in connections]
    await asyncio.sleep(0.05)

    assert told_at_once == [False, False, False, True, True, True]
    assert len(app.reached) == 3
    assert (admission.refused, admission.in_flight, turn_away.is_full) == (0, 0, False)


@pytest.mark.parametrize(
    "before",
    [PLAIN[:-1], PLAIN + PLAIN[:9], HEAD + b"Connection: close\r\n\r\n", b"\x16\x03", HEAD + b"Upgrade: x\r\n\r\n"],
)
def test_whatever_it_could_not_read_the_next_request_is_read_at_a_glance(before: bytes) -> None:
    glancer = Glancer()

    unread = glancer.read(before, ConnectionLimits())

    assert unread is None
    assert glancer.read(PLAIN, ConnectionLimits()) == Glance(b"/echo?x=1", TRACE)


async def test_the_connection_keeps_nothing_of_a_request_that_was_turned_away() -> None:
    word = secrets.token_hex(8).encode()
    config = server_config(App(), drain_s=1.0, turn_away=TurnAway(lambda _: True, lets_in=()))
    connection, wire = EdgeProtocol(config, ServerState(), {}), Wire()
    connection.connection_made(wire)
    request = post(b"/echo?" + word, word, b"Authorization: Bearer " + word)

    connection.data_received(request[:-1])
    while_it_comes = [text for text in texts_in(vars(connection)) if word in text]
    connection.data_received(request[-1:])

    assert wire.sent.startswith(b"HTTP/1.1 503 ")
    assert while_it_comes
    assert [text for text in texts_in(vars(connection)) if word in text] == []
