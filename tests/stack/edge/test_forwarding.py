"""What the edge makes of a request and of its answer."""

from __future__ import annotations

import re
import socket
import ssl
import subprocess
import time

import pytest

from payflow.platform.http.headers import PUBLIC
from tests.support.nginx import Nginx
from tests.support.programs import require_program
from tests.support.raw_http import ask, connection, request
from tests.support.recorder import Gateways

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MADE_TRACE = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00")

SPOOFED = [
    ("X-Forwarded-For", "1.2.3.4"),
    ("X-Forwarded-For", "1.2.3.4, 5.6.7.8"),
    ("X-Real-IP", "1.2.3.4"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "evil.example"),
    ("X-Forwarded-Port", "1"),
]
TAKEN_AWAY = ["Forwarded", "X-Forwarded", "X-Forwarded-Prefix", "X-Forwarded-Server", "X-Original-URL", "X-Rewrite-URL"]


def test_a_request_reaches_a_gateway_as_it_was_sent(nginx: Nginx, gateways: Gateways) -> None:
    body = b'{"amount": 1000.00}'

    answer = ask(nginx.http, request("POST", "/payment/confirm?a=1%202", "Idempotency-Key: k1", body=body))

    assert (answer.status, answer.body) == (200, b'{"real":true}')
    assert gateways.the_one.line == "POST /payment/confirm?a=1%202 HTTP/1.1"
    assert gateways.the_one.body == body
    assert gateways.the_one.one("idempotency-key") == "k1"
    assert gateways.the_one.one("host") == "localhost"


@pytest.mark.parametrize(("name", "value"), SPOOFED)
def test_what_a_client_says_of_its_own_address_is_overwritten(
    nginx: Nginx, gateways: Gateways, name: str, value: str
) -> None:
    ask(nginx.http, request("GET", "/payments", f"{name}: {value}", f"{name}: {value}"), source="127.0.0.9")

    seen = gateways.the_one
    assert seen.one("x-forwarded-for") == seen.one("x-real-ip") == "127.0.0.9"
    assert seen.one("x-forwarded-proto") == "http"
    assert seen.one("x-forwarded-host") == "localhost"
    assert seen.one("x-forwarded-port") == str(nginx.http)


@pytest.mark.parametrize("name", [*TAKEN_AWAY, "Proxy", "X_Forwarded_For"])
def test_fields_that_could_be_believed_instead_do_not_pass(nginx: Nginx, gateways: Gateways, name: str) -> None:
    ask(nginx.http, request("GET", "/payments", f"{name}: for=1.2.3.4"))

    assert gateways.the_one.all_of(name) == []


def test_a_request_without_trace_or_id_gets_both(nginx: Nginx, gateways: Gateways) -> None:
    answer = ask(nginx.http, request("GET", "/payments"))

    assert MADE_TRACE.fullmatch(gateways.the_one.one("traceparent"))
    assert re.fullmatch(r"[0-9a-f]{32}", gateways.the_one.one("x-request-id"))
    assert answer.one("x-request-id") == gateways.the_one.one("x-request-id")


def test_a_clients_trace_and_id_go_on(nginx: Nginx, gateways: Gateways) -> None:
    fields = (f"traceparent: {TRACE}", "tracestate: a=b", "X-Request-Id: order-17.retry_2")

    answer = ask(nginx.http, request("GET", "/payments", *fields))

    assert gateways.the_one.one("traceparent") == TRACE
    assert gateways.the_one.one("tracestate") == "a=b"
    assert answer.one("x-request-id") == gateways.the_one.one("x-request-id") == "order-17.retry_2"


@pytest.mark.parametrize(
    "broken",
    [
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
        "yes",
    ],
)
def test_a_malformed_trace_is_replaced(nginx: Nginx, gateways: Gateways, broken: str) -> None:
    ask(nginx.http, request("GET", "/payments", f"traceparent: {broken}"))

    assert MADE_TRACE.fullmatch(gateways.the_one.one("traceparent"))


@pytest.mark.parametrize("unfit", ["a b", 'x"y', "a" * 65, "id\\n"])
def test_a_request_id_that_would_spoil_a_log_is_replaced(nginx: Nginx, gateways: Gateways, unfit: str) -> None:
    ask(nginx.http, request("GET", "/payments", f"X-Request-Id: {unfit}"))

    assert re.fullmatch(r"[0-9a-f]{32}", gateways.the_one.one("x-request-id"))


def test_a_gateways_answer_gets_no_security_fields_from_the_edge(nginx: Nginx, gateways: Gateways) -> None:
    answer = ask(nginx.http, request("GET", "/payments"))

    names = {name for name, _ in answer.fields}
    assert names == {"server", "date", "content-type", "content-length", "connection", "x-request-id"}
    assert answer.one("server") == "nginx"


def test_the_edges_own_answers_have_the_security_fields_once_each(nginx: Nginx) -> None:
    answer = ask(nginx.http, request("GET", "/nothing-here", f"traceparent: {TRACE}"))

    assert {name.decode(): answer.one(name.decode()) for name, _ in PUBLIC} == {
        name.decode(): value.decode() for name, value in PUBLIC
    }
    assert answer.problem["trace_id"] == TRACE[3:35]
    assert answer.one("traceresponse") == TRACE
    assert answer.problem["instance"] == "/nothing-here"


def test_http_2_and_tls_reach_a_gateway_as_https(nginx: Nginx, gateways: Gateways) -> None:
    curl = require_program("curl", package="curl")
    command = [curl, "--silent", "--show-error", "--cacert", str(nginx.certificate), "--http2", "--max-time", "10"]

    done = subprocess.run(
        [*command, "-w", "\n%{http_version} %{http_code}", f"{nginx.secure_url}/payments"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout == '{"real":true}\n2 200', done.stderr
    assert gateways.the_one.line == "GET /payments HTTP/1.1"
    assert gateways.the_one.one("x-forwarded-proto") == "https"
    assert gateways.the_one.one("host") == "localhost"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2])
def test_present_tls_is_spoken(nginx: Nginx, version: ssl.TLSVersion) -> None:
    assert shake_hands(nginx, version) == version.name.replace("_", ".")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
@pytest.mark.parametrize("name", ["TLSv1_1", "TLSv1"])
def test_old_tls_is_refused_by_the_edge(nginx: Nginx, name: str) -> None:
    with pytest.raises(ssl.SSLError, match="alert protocol version"):
        shake_hands(nginx, ssl.TLSVersion[name])


def shake_hands(nginx: Nginx, version: ssl.TLSVersion) -> str | None:
    """The version agreed on when the client insists on one. Raises ssl.SSLError."""
    context = ssl.create_default_context(cafile=str(nginx.certificate))
    context.set_ciphers("DEFAULT:@SECLEVEL=0")  # this side would speak even the oldest
    context.minimum_version = context.maximum_version = version
    with (
        socket.create_connection(("127.0.0.1", nginx.https), timeout=5) as sock,
        context.wrap_socket(sock, server_hostname="localhost") as secured,
    ):
        return secured.version()


def test_events_go_on_one_by_one(nginx: Nginx, gateways: Gateways) -> None:
    arrived: list[float] = []

    with connection(nginx.http) as link:
        link.send(request("GET", "/payments/txn-1/events"))
        data, began_at = b"", time.monotonic()
        while not data.endswith(b"0\r\n\r\n"):
            data += link.sock.recv(65536)
            while len(arrived) < data.count(b"id: "):
                arrived.append(time.monotonic() - began_at)

    assert len(arrived) == 3, data
    assert arrived[0] < 0.4
    assert 0.3 < arrived[1] - arrived[0] < 1.5
    assert 0.3 < arrived[2] - arrived[1] < 1.5


def test_both_gateways_get_their_share(nginx: Nginx, gateways: Gateways) -> None:
    with connection(nginx.http) as link:
        for _ in range(20):
            link.send(request("GET", "/payments"))
            assert link.read() is not None

    assert {len(gateways.first.seen), len(gateways.second.seen)} == {10}
