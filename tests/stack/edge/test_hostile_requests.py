"""Requests that two readers could read in two ways are refused, or reach the gateways as one unmistakable request."""

from __future__ import annotations

import json
import time

import pytest

from tests.support.nginx import Nginx
from tests.support.raw_http import ask, connection, request
from tests.support.recorder import Gateways

HIDDEN = b"GET /payments/smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(*fields: bytes, body: bytes = b"", line: bytes = b"POST /payment/confirm HTTP/1.1") -> bytes:
    return b"\r\n".join([line, b"Host: localhost", *fields, b"", b""]) + body


REFUSED = {
    "length and chunks": post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "chunks and length": post(b"Transfer-Encoding: chunked", b"Content-Length: 60", body=b"0\r\n\r\n" + HIDDEN),
    "two lengths": post(b"Content-Length: 0", b"Content-Length: 53", body=HIDDEN),
    "the same length twice": post(b"Content-Length: 53", b"Content-Length: 53", body=HIDDEN),
    "a list of lengths": post(b"Content-Length: 0, 53", body=HIDDEN),
    "a length with a sign": post(b"Content-Length: +53", body=HIDDEN),
    "a negative length": post(b"Content-Length: -1", body=HIDDEN),
    "a length in hexadecimal": post(b"Content-Length: 0x35", body=HIDDEN),
    "an endless length": post(b"Content-Length: 99999999999999999999999", body=HIDDEN),
    "another transfer coding": post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n" + HIDDEN),
    "an unknown transfer coding": post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n" + HIDDEN),
    "two transfer codings": post(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n" + HIDDEN
    ),
    "a blank before the colon": post(b"Content-Length : 53", body=HIDDEN),
    "a blank before the colon of chunks": post(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n" + HIDDEN),
    "a folded field": post(b"X-Fold: a", b" Transfer-Encoding: chunked", body=b"0\r\n\r\n" + HIDDEN),
    "a folded field with a tab": post(b"X-Fold: a", b"\tb: c", body=HIDDEN),
    "a field without a name": post(b": value", body=HIDDEN),
    "a null byte in a value": post(b"X-Null: a\x00b", body=HIDDEN),
    "a null byte in a name": post(b"X-Nu\x00ll: a", body=HIDDEN),
    "a null byte in the path": b"GET /payments\x00/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a hidden null byte in the path": b"GET /payments%00/x HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a broken percent sign": b"GET /payments/%zz HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "no host": b"GET /payments HTTP/1.1\r\n\r\n",
    "two hosts": b"GET /payments HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n",
    "a host with a path": b"GET /payments HTTP/1.1\r\nHost: localhost/evil\r\n\r\n",
    "version 2 in the words of version 1": b"GET /payments HTTP/2.0\r\nHost: localhost\r\n\r\n",
    "an unknown version": b"GET /payments HTTP/9.9\r\nHost: localhost\r\n\r\n",
    "a blank too many": b"GET  /payments  HTTP/1.1 x\r\nHost: localhost\r\n\r\n",
    "a tunnel": b"CONNECT localhost:443 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "an echo": b"TRACE /payments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer x\r\n\r\n",
    "a method in small letters": b"get /payments HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a target that is no path": b"GET payments HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 not TLS here\r\n\r\n",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED)
def test_a_request_with_two_readings_reaches_no_gateway(nginx: Nginx, gateways: Gateways, data: bytes) -> None:
    with connection(nginx.http) as link:
        link.send(data)
        answer = link.read()
        is_over = link.is_closed()

    assert answer is not None
    assert answer.status in (400, 405), answer
    assert answer.error in ("MALFORMED_REQUEST", "METHOD_NOT_ALLOWED")
    assert is_over
    assert gateways.seen == []


def test_a_request_of_before_http_1_0_is_refused_without_a_head(nginx: Nginx, gateways: Gateways) -> None:
    with connection(nginx.http) as link:
        link.send(b"GET /payments\r\n")
        data = link.sock.recv(65536)

    assert json.loads(data)["error"] == "MALFORMED_REQUEST"
    assert gateways.seen == []


BAD_CHUNKS = {
    "no number": b"zz\r\nabc\r\n0\r\n\r\n",
    "a negative number": b"-1\r\nabc\r\n0\r\n\r\n",
    "a number without end": b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "hexadecimal with a prefix": b"0x3\r\nabc\r\n0\r\n\r\n",
    "more than was said": b"3\r\nabcdef\r\n0\r\n\r\n",
    "a bare line feed": b"3\nabc\r\n0\r\n\r\n\x00",
}


@pytest.mark.parametrize("body", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
def test_broken_chunks_hide_no_second_request(nginx: Nginx, gateways: Gateways, body: bytes) -> None:
    with connection(nginx.http) as link:
        link.send(post(b"Transfer-Encoding: chunked", body=body + HIDDEN))
        answer = link.read()

    assert answer is not None
    assert answer.status in (200, 400), answer
    # Where NGINX reads it, the gateway gets the body with one length, and not the hidden request in it.
    assert "GET /payments/smuggled HTTP/1.1" not in gateways.first.lines() + gateways.second.lines()
    assert all(one.all_of("transfer-encoding") == [] for one in gateways.seen)
    assert [one.body for one in gateways.seen] in ([], [b"abc"])


def test_good_chunks_reach_a_gateway_as_one_body_with_one_length(nginx: Nginx, gateways: Gateways) -> None:
    ask(
        nginx.http,
        post(b"Transfer-Encoding: chunked", body=b"3;name=value\r\nabc\r\n2\r\nde\r\n0\r\nX-Late: 1\r\n\r\n"),
    )

    assert gateways.the_one.body == b"abcde"
    assert gateways.the_one.one("content-length") == "5"
    assert gateways.the_one.all_of("transfer-encoding") == []
    assert gateways.the_one.all_of("x-late") == []


def test_two_requests_in_one_packet_are_two_requests(nginx: Nginx, gateways: Gateways) -> None:
    with connection(nginx.http) as link:
        link.send(post(b"Content-Length: 3", body=b"abc") + HIDDEN)
        answers = [link.read(), link.read()]

    assert [answer and answer.status for answer in answers] == [200, 200]
    assert sorted(one.line for one in gateways.seen) == [
        "GET /payments/smuggled HTTP/1.1",
        "POST /payment/confirm HTTP/1.1",
    ]


def test_an_absolute_target_reaches_a_gateway_as_a_path(nginx: Nginx, gateways: Gateways) -> None:
    ask(nginx.http, b"GET http://localhost/payments HTTP/1.1\r\nHost: evil.example\r\n\r\n")

    assert gateways.the_one.line == "GET /payments HTTP/1.1"
    assert gateways.the_one.one("host") == "localhost"


INTERNAL = [
    "/metrics",
    "/metrics/",
    "/metrics?x=1",
    "/metrics%3Fx",
    "/Metrics",
    "/%6detrics",
    "//metrics",
    "/./metrics",
    "/docs/../metrics",
    "/docs/%2e%2e/metrics",
    "/docs/..%2fmetrics",
    "/docs%2f..%2fmetrics",
    "/docs/..%5cmetrics",
    "/docs/..;/metrics",
    "/metrics;x",
    "/metrics/../docs",
    "/docs/assets/..%2f..%2fmetrics",
    "/rpc/gateway/create_users",
    "/rpc/gateway/rotate_keys",
    "/rpc",
    "/rpc/",
    "/rpc/../payments",
    "//rpc/gateway/rotate_keys",
    "/payments/..//rpc/gateway/rotate_keys",
    "/payments/%2e%2e/rpc/gateway/rotate_keys",
    "/payments%2f%2e%2e%2frpc%2fgateway%2frotate_keys",
    "/payments/%2e%2e%2frpc/gateway/rotate_keys",
    "/payments/x/./events",
    "/payments//x",
    "/_problem/404",
    "/_problem/502",
    "/nginx_status",
    "/.git/config",
    "/paymentsx",
    "/internal",
]


@pytest.mark.parametrize("path", INTERNAL)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_published_is_not_there(nginx: Nginx, gateways: Gateways, path: str, method: str) -> None:
    answer = ask(nginx.http, request(method, path))

    assert (answer.status, answer.error) == (404, "NOT_FOUND")
    assert gateways.seen == []


def test_an_absolute_target_leads_to_no_internal_address(nginx: Nginx, gateways: Gateways) -> None:
    answer = ask(nginx.http, b"GET http://localhost/docs/../metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (answer.status, answer.error) == (404, "NOT_FOUND")
    assert gateways.seen == []


@pytest.mark.parametrize("path", ["/", "/health", "/live", "/ready", "/docs", "/docs/assets/a.css", "/openapi.json"])
def test_what_is_published_is_there(nginx: Nginx, gateways: Gateways, path: str) -> None:
    assert ask(nginx.http, request("GET", path)).status == 200
    assert gateways.the_one.line == f"GET {path} HTTP/1.1"


def test_an_escaped_letter_is_still_an_address(nginx: Nginx, gateways: Gateways) -> None:
    assert ask(nginx.http, request("GET", "/accounts/DE%20A")).status == 200
    assert gateways.the_one.path == "/accounts/DE%20A"


def test_a_head_without_end_is_refused(nginx: Nginx, gateways: Gateways) -> None:
    line = b"X-Fill: " + b"a" * 4000 + b"\r\n"

    answer = ask(nginx.http, b"GET /payments HTTP/1.1\r\nHost: localhost\r\n" + line * 12)

    assert (answer.status, answer.error) == (431, "HEADERS_TOO_LARGE")
    assert gateways.seen == []


def test_one_field_without_end_is_refused(nginx: Nginx, gateways: Gateways) -> None:
    answer = ask(nginx.http, request("GET", "/payments", "Cookie: " + "a" * 40_000))

    assert (answer.status, answer.error) == (431, "HEADERS_TOO_LARGE")
    assert gateways.seen == []


def test_an_address_without_end_is_refused(nginx: Nginx, gateways: Gateways) -> None:
    answer = ask(nginx.http, request("GET", "/payments?q=" + "a" * 40_000))

    assert (answer.status, answer.error) == (400, "MALFORMED_REQUEST")
    assert gateways.seen == []


def test_a_head_that_drips_in_is_ended_in_time(nginx: Nginx, gateways: Gateways) -> None:
    began_at = time.monotonic()

    with connection(nginx.http) as link:
        link.send(b"GET /payments HTTP/1.1\r\nHost: localhost\r\n")
        link.sock.settimeout(0.5)
        while time.monotonic() - began_at < 14:
            link.send(b"X-Drip: 1\r\n")
            try:
                if link.is_closed():
                    break
            except TimeoutError:
                continue
    took_s = time.monotonic() - began_at

    assert 9 < took_s < 13
    assert gateways.seen == []
