"""The HTTP edge against clients that do not keep the rules: hand-written bytes, slow senders, bodies without end."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.security.http_live import (
    BODY_MAX,
    HOST,
    Live,
    ask,
    chunked,
    connect,
    is_closed,
    post,
    read_answer,
    running_public_edge,
)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with running_public_edge() as server:
        yield server


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"

MALFORMED = {
    "content-length and transfer-encoding": b"POST /echo HTTP/1.1\r\n%sContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",  # noqa: E501
    "transfer-encoding and content-length": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",  # noqa: E501
    "two different lengths": b"POST /echo HTTP/1.1\r\n%sContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "two equal lengths": b"POST /echo HTTP/1.1\r\n%sContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a list of lengths": b"POST /echo HTTP/1.1\r\n%sContent-Length: 3, 3\r\n\r\nabc",
    "a negative length": b"POST /echo HTTP/1.1\r\n%sContent-Length: -3\r\n\r\n",
    "a signed length": b"POST /echo HTTP/1.1\r\n%sContent-Length: +3\r\n\r\nabc",
    "a hexadecimal length": b"POST /echo HTTP/1.1\r\n%sContent-Length: 0x3\r\n\r\nabc",
    "a length of 30 digits": b"POST /echo HTTP/1.1\r\n%sContent-Length: 999999999999999999999999999999\r\n\r\n",
    "a folded header": b"GET /early HTTP/1.1\r\n%sX: a\r\n b\r\n\r\n",
    "a folded transfer-encoding": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "bare line feeds": b"GET /early HTTP/1.1\nHost: localhost\n\n",
    "one bare line feed": b"GET /early HTTP/1.1\r\nX: a\nHost: localhost\r\n\r\n",
    "a bare carriage return": b"GET /early HTTP/1.1\r\n%sX: a\rY: b\r\n\r\n",
    "a NUL in a header": b"GET /early HTTP/1.1\r\n%sX: a\0b\r\n\r\n",
    "a NUL in the path": b"GET /ear\0ly HTTP/1.1\r\n%s\r\n",
    "an encoded NUL in the path": b"GET /early%%00 HTTP/1.1\r\n%s\r\n",
    "an encoded line feed in the path": b"GET /early%%0a HTTP/1.1\r\n%s\r\n",
    "a broken percent-encoding": b"GET /early%%zz HTTP/1.1\r\n%s\r\n",
    "an encoded path that is no UTF-8": b"GET /early%%ff HTTP/1.1\r\n%s\r\n",
    "raw bytes in the path": b"GET /\xff\xfe HTTP/1.1\r\n%s\r\n",
    "a fragment": b"GET /early#x HTTP/1.1\r\n%s\r\n",
    "a path that is none": b"GET early HTTP/1.1\r\n%s\r\n",
    "an asterisk": b"OPTIONS * HTTP/1.1\r\n%s\r\n",
    "another host in the target": b"GET http://other/early HTTP/1.1\r\n%s\r\n",
    "CONNECT": b"CONNECT localhost:443 HTTP/1.1\r\n%s\r\n",
    "no host": b"GET /early HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /early HTTP/1.1\r\n%sHost: other\r\n\r\n",
    "two equal hosts": b"GET /early HTTP/1.1\r\n%sHost: localhost\r\n\r\n",
    "an empty host": b"GET /early HTTP/1.1\r\nHost:\r\n\r\n",
    "a host that is none": b"GET /early HTTP/1.1\r\nHost: a/b@c\r\n\r\n",
    "a blank before the colon": b"GET /early HTTP/1.1\r\nHost : localhost\r\n\r\n",
    "a header without a name": b"GET /early HTTP/1.1\r\n%s: a\r\n\r\n",
    "a method that is none": b"STEAL /early HTTP/1.1\r\n%s\r\n",
    "HTTP/0.9": b"GET /early\r\n\r\n",
    "HTTP/1.2": b"GET /early HTTP/1.2\r\n%s\r\n",
    "HTTP/2.0": b"GET /early HTTP/2.0\r\n%s\r\n",
    "the HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a TLS hello": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a second coding": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "another coding": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: identity\r\n\r\n",
    "a coding that looks like chunked": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "two codings": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST /echo HTTP/1.0\r\n%sTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is none": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\nzz\r\nab\r\n0\r\n\r\n",
    "a negative chunk size": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n-1\r\nab\r\n0\r\n\r\n",
    "a chunk size that overflows": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n"
    b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "chunks with bare line feeds": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "a chunk longer than its size": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "a length among the trailers": b"POST /echo HTTP/1.1\r\n%sTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\nContent-Length: 40\r\n\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_request_is_answered_400_and_what_follows_it_is_never_read(live: Live, name: str) -> None:
    template = MALFORMED[name]
    request = template % HOST if b"%s" in template else template.replace(b"%%", b"%")
    reached = len(live.app.reached)

    with connect(live) as sock:
        sock.sendall(request + SMUGGLED)
        answer, rest = read_answer(sock)

        assert answer.status == 400
        assert answer.headers["connection"] == "close"
        assert answer.problem["error"] == "MALFORMED_REQUEST"
        assert answer.problem["trace_id"] in answer.headers["traceresponse"]
        assert rest == b""
        assert is_closed(sock)
    assert len(live.app.reached) == reached


@pytest.mark.parametrize(
    ("request_bytes", "size"),
    [
        (post(b"/echo", b"abc"), 3),
        (post(b"/echo", b""), 0),
        (post(b"http://localhost/echo", b"abc"), 3),
        (post(b"/%65cho?x=%00", b"abc"), 3),
        (chunked(b"/echo", b"3\r\nabc\r\n2;name=value\r\nde\r\n0\r\n\r\n"), 5),
        (b"\r\n\r\n" + post(b"/echo", b"abc"), 3),
        (b"POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nab", 2),
        (b"POST /echo HTTP/1.1\r\nHost: [::1]:8080\r\nContent-Length: 2\r\n\r\nab", 2),
        (post(b"/echo", b"a" * BODY_MAX), BODY_MAX),
    ],
)
def test_unusual_but_lawful_requests_are_answered(live: Live, request_bytes: bytes, size: int) -> None:
    answer = ask(live, request_bytes)

    assert (answer.status, json.loads(answer.body)["size"]) == (200, size)


def test_a_trailer_never_becomes_a_header(live: Live) -> None:
    answer = ask(live, chunked(b"/echo", b"1\r\na\r\n0\r\nAuthorization: Bearer x\r\nHost: evil\r\n\r\n"))

    headers = json.loads(answer.body)["headers"]
    assert headers["host"] == "localhost"
    assert "authorization" not in headers


def test_an_upgrade_is_answered_as_plain_http_and_what_follows_is_never_read(live: Live) -> None:
    request = b"GET /early HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"

    with connect(live) as sock:
        sock.sendall(request + SMUGGLED)
        answer, rest = read_answer(sock)

        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert rest == b""
        assert is_closed(sock)


def test_pipelined_requests_are_answered_in_order_and_a_broken_one_ends_the_connection_after_them(live: Live) -> None:
    first = b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n"

    with connect(live) as sock:
        sock.sendall(first + post(b"/echo", b"abc"))
        one, rest = read_answer(sock)
        two, rest = read_answer(sock, rest=rest)
        sock.sendall(first + b"BROKEN\r\n\r\n" + SMUGGLED)
        three, rest = read_answer(sock, rest=rest)

        assert json.loads(one.body) == {"slow": True}
        assert json.loads(two.body)["size"] == 3
        assert json.loads(three.body) == {"slow": True}
        assert three.headers["connection"] == "close"
        assert rest == b""
        assert is_closed(sock)


@pytest.mark.parametrize(
    "fields", [b"X: " + b"a" * 9_000_000, b"".join(b"X%d: a\r\n" % i for i in range(101)) + b"Y: a"]
)
def test_a_head_beyond_its_bounds_is_answered_431_even_while_it_is_still_being_sent(live: Live, fields: bytes) -> None:
    with connect(live) as sock:
        with suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(b"GET /early HTTP/1.1\r\n" + HOST + fields + b"\r\n\r\n")
        answer, _ = read_answer(sock)

        assert answer.status == 431
        assert answer.problem["error"] == "HEADERS_TOO_LARGE"
        assert is_closed(sock)


def test_a_head_that_is_sent_byte_by_byte_is_bounded_in_size_too(live: Live) -> None:
    with connect(live) as sock:
        sock.sendall(b"GET /early HTTP/1.1\r\n" + HOST + b"X: ")
        with pytest.raises((ConnectionResetError, BrokenPipeError, EOFError)):  # noqa: PT012
            for _ in range(40):
                sock.sendall(b"a" * 1024)
                time.sleep(0.002)
            answer, _ = read_answer(sock)
            assert answer.status == 431
            raise EOFError


def test_an_address_beyond_8_kb_is_refused(live: Live) -> None:
    answer = ask(live, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    assert answer.status == 400
    assert len(answer.problem["instance"]) <= 256


@pytest.mark.parametrize("begin", [b"GET /early HTTP/1.1\r\nHost: l", b"P", b"GET /early HTTP/1.1\r\n" + HOST])
def test_a_head_that_never_ends_is_answered_408(live: Live, begin: bytes) -> None:
    started = time.monotonic()

    with connect(live) as sock:
        for byte in begin:
            sock.sendall(bytes([byte]))
        answer, _ = read_answer(sock)

        assert answer.status == 408
        assert answer.problem["error"] == "REQUEST_TIMEOUT"
        assert 0.9 <= time.monotonic() - started < 3
        assert is_closed(sock)


def test_bytes_that_keep_coming_do_not_prolong_a_head(live: Live) -> None:
    started = time.monotonic()

    with connect(live) as sock:
        sock.sendall(b"GET /early HTTP/1.1\r\nX: ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):  # noqa: PT012
            while time.monotonic() - started < 10:
                sock.sendall(b"a")
                time.sleep(0.05)

    assert time.monotonic() - started < 5


def test_a_connection_on_which_nothing_or_only_line_ends_come_is_closed_silently(live: Live) -> None:
    with connect(live) as silent, connect(live) as lines:
        for _ in range(30):
            lines.sendall(b"\r\n")

        assert is_closed(silent)
        assert is_closed(lines)


def test_a_body_that_never_ends_is_answered_408_and_the_application_learns_that_the_client_is_gone(live: Live) -> None:
    live.app.gone.clear()

    with connect(live) as sock:
        sock.sendall(b"POST /wait-for-body HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nabc")
        answer, _ = read_answer(sock)

        assert answer.status == 408
        assert is_closed(sock)
    assert live.app.gone.wait(2)


def test_a_connection_stays_open_between_requests_and_not_for_ever(live: Live) -> None:
    with connect(live) as sock:
        for _ in range(3):
            sock.sendall(post(b"/echo", b"abc"))
            answer, _ = read_answer(sock)
            time.sleep(0.4)
        started = time.monotonic()

        assert answer.status == 200
        assert is_closed(sock)
        assert time.monotonic() - started > 0.5


def test_a_body_half_sent_after_an_early_answer_does_not_hold_the_connection(live: Live) -> None:
    with connect(live) as sock:
        sock.sendall(b"POST /early HTTP/1.1\r\n" + HOST + b"Content-Length: 10\r\n\r\nabc")
        answer, _ = read_answer(sock)

        assert answer.status == 200
        assert is_closed(sock, within_s=4)


@pytest.mark.parametrize("path", [b"/echo", b"/unknown", b"/early", b"/health"])
@pytest.mark.parametrize("length", [BODY_MAX + 1, 9_000_000, 10**15])
def test_a_body_beyond_64_kb_is_answered_413_before_it_is_read(live: Live, path: bytes, length: int) -> None:
    head = b"POST %s HTTP/1.1\r\n%sContent-Length: %d\r\nExpect: 100-continue\r\n\r\n" % (path, HOST, length)

    answer = ask(live, head)

    assert answer.status == 413
    assert answer.problem["error"] == "PAYLOAD_TOO_LARGE"
    assert answer.headers["connection"] == "close"


def test_the_answer_413_reaches_a_client_that_sends_on(live: Live) -> None:
    with connect(live) as sock:
        sock.sendall(post(b"/echo", b"a" * 1_000_000))
        answer, _ = read_answer(sock)

        assert answer.status == 413


def test_a_chunked_body_is_counted_and_answered_413(live: Live) -> None:
    reached = len(live.app.reached)

    answer = ask(
        live, chunked(b"/echo", b"8000\r\n" + b"a" * 0x8000 + b"\r\n8000\r\n" + b"a" * 0x8000 + b"\r\n1\r\na\r\n")
    )

    assert answer.status == 413
    assert len(live.app.reached) == reached


def test_expect_100_continue_is_answered_when_the_body_is_wanted(live: Live) -> None:
    with connect(live) as sock:
        sock.sendall(b"POST /echo HTTP/1.1\r\n" + HOST + b"Content-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        go_on = sock.recv(100)
        sock.sendall(b"abc")
        answer, _ = read_answer(sock)

        assert go_on == b"HTTP/1.1 100 Continue\r\n\r\n"
        assert answer.status == 200
