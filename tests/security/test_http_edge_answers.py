"""What the HTTP edge answers: problems, security headers, traces, overload, and the end of a process."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from payflow.kernel.errors import Rejection
from payflow.platform.http.admission import Admission
from payflow.platform.http.asgi import with_lifespan
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.health import HealthRoutes
from payflow.platform.http.server import ServerStartError, serve
from tests.security.http_live import (
    HOST,
    LIMITS,
    App,
    Live,
    ask,
    connect,
    is_closed,
    post,
    read_answer,
    running,
    running_public_edge,
)


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with running_public_edge() as server:
        yield server


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        (b"TRACE", b"/echo", 405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        (b"TRACE", b"/unknown", 405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        (b"PROPFIND", b"/unknown", 405, "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"),
        (b"DELETE", b"/unknown", 404, None),
        (b"GET", b"/echo", 405, "POST"),
        (b"POST", b"/health", 405, "GET, HEAD"),
        (b"DELETE", b"/metrics", 405, "GET, HEAD"),
        (b"GET", b"/foreign", 405, "PUT"),
        (b"HEAD", b"/unknown", 404, None),
    ],
)
def test_a_wrong_method_or_path_is_a_problem_with_allow(
    live: Live, method: bytes, path: bytes, status: int, allow: str | None
) -> None:
    answer = ask(live, b"%s %s HTTP/1.1\r\n%s\r\n" % (method, path, HOST), has_body=method != b"HEAD")

    assert answer.status == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers.get("allow") == allow
    assert answer.names.count("allow") == (allow is not None)


def test_an_unhandled_exception_shows_nothing_of_itself(live: Live, capsys: pytest.CaptureFixture[str]) -> None:
    answer = ask(live, b"GET /bug HTTP/1.1\r\n" + HOST + b"\r\n")

    logged = capsys.readouterr()
    assert answer.status == 500
    assert answer.problem["error"] == "INTERNAL_ERROR"
    for secret in (b"ZeroDivision", b"DE0212", b"Traceback"):
        assert secret not in answer.body
    assert answer.problem["trace_id"] in logged.out
    assert "ZeroDivisionError" in logged.out
    assert "DE0212" not in logged.out + logged.err


def test_an_answer_that_breaks_off_is_cut_and_an_absent_one_is_500(live: Live) -> None:
    silent = ask(live, b"GET /silent HTTP/1.1\r\n" + HOST + b"\r\n")

    assert silent.status == 500
    with pytest.raises(EOFError):
        ask(live, b"GET /half HTTP/1.1\r\n" + HOST + b"\r\n")


def test_an_error_of_the_four_families_is_its_problem_with_its_headers(live: Live) -> None:
    answer = ask(live, b"GET /unavailable HTTP/1.1\r\n" + HOST + b"\r\n")

    assert answer.status == 503
    assert answer.headers["retry-after"] == "7"
    assert answer.problem["error"] == "SERVICE_UNAVAILABLE"
    assert answer.problem["detail"] == "Later."


SECURITY_HEADERS = {
    "strict-transport-security",
    "content-security-policy",
    "x-content-type-options",
    "x-frame-options",
    "cache-control",
    "referrer-policy",
    "permissions-policy",
    "traceresponse",
    "date",
}


@pytest.mark.parametrize("request_line", [b"GET /early", b"GET /unknown", b"GET /bug", b"GET /foreign", b"GET /a\x00b"])
def test_every_answer_has_every_security_header_once_and_no_server(live: Live, request_line: bytes) -> None:
    answer = ask(live, request_line + b" HTTP/1.1\r\n" + HOST + b"\r\n")

    assert set(answer.headers) >= SECURITY_HEADERS
    assert len(answer.names) == len(set(answer.names))
    assert "server" not in answer.headers
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"


def test_the_documentation_may_load_its_own_assets_and_nothing_else(live: Live) -> None:
    answer = ask(live, b"GET /docs HTTP/1.1\r\n" + HOST + b"\r\n")

    policy = answer.headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_an_application_may_say_how_long_its_answer_keeps(live: Live) -> None:
    answer = ask(live, b"GET /cached HTTP/1.1\r\n" + HOST + b"\r\n")

    assert answer.headers["cache-control"] == "max-age=60"
    assert answer.names.count("cache-control") == 1


TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("sent", "continued"),
    [
        (f"00-{TRACE}-00f067aa0ba902b7-01", True),
        (f"cc-{TRACE}-00f067aa0ba902b7-01-more", True),
        (f"00-{TRACE}-00f067aa0ba902b7-01-more", False),
        (f"ff-{TRACE}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE.upper()}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-0000000000000000-01", False),
        (f"00-{'0' * 32}-00f067aa0ba902b7-01", False),
        (f"00-{TRACE}-00f067aa0ba902b7", False),
        (f"00-{TRACE}-00f067aa0ba902b7-01\r\ntraceparent: 00-{TRACE}-00f067aa0ba902b7-01", False),
        ("x", False),
    ],
)
def test_a_valid_trace_is_continued_and_any_other_replaced(live: Live, sent: str, continued: bool) -> None:
    answer = ask(live, post(b"/echo", b"", b"traceparent: " + sent.encode()))

    seen = json.loads(answer.body)["trace"]
    assert (TRACE in seen) == continued
    assert seen == answer.headers["traceresponse"]
    assert len(seen) == 55
    assert "00f067aa0ba902b7" not in seen
    assert seen.endswith("-00"), "a client's sampling flag does not make us record"


def test_more_connections_than_may_be_are_refused_at_once(live: Live) -> None:
    sockets = [connect(live) for _ in range(LIMITS.connections_max + 5)]
    try:
        answer, _ = read_answer(sockets[-1])
    finally:
        for sock in sockets:
            sock.close()

    assert answer.status == 503
    assert answer.problem["error"] == "OVERLOADED"


def test_overload_is_answered_503_in_less_than_100_ms_and_health_still_answers() -> None:
    app = App()
    admission = Admission(2, 1, queue_wait_max_s=0.3)
    health = HealthRoutes("demo", {}, set())
    layer = EdgeLayer(health.before(admission.wrap(app)), service="demo", public=True)
    slow = b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n"

    with running(layer, routes=app) as live:
        sockets = [connect(live) for _ in range(4)]
        for sock in sockets[:3]:
            sock.sendall(slow)
            time.sleep(0.02)
        started = time.monotonic()
        sockets[3].sendall(slow)
        refused, _ = read_answer(sockets[3])
        took = time.monotonic() - started
        alive = ask(live, b"GET /live HTTP/1.1\r\n" + HOST + b"\r\n")
        waited, _ = read_answer(sockets[2])
        waited_for = time.monotonic() - started
        served = [read_answer(sock)[0].status for sock in sockets[:2]]
        again = ask(live, slow)

    assert (refused.status, refused.problem["error"]) == (503, "OVERLOADED")
    assert took < 0.1
    assert int(refused.headers["retry-after"]) >= 1
    assert alive.status == 200
    assert (waited.status, waited_for < 0.5) == (503, True)
    assert served == [200, 200]
    assert again.status == 200
    assert (admission.in_flight, admission.waiting, admission.refused) == (0, 0, 2)


def test_a_drain_finishes_what_is_in_flight_and_ends_the_rest() -> None:
    app = App()
    with running(EdgeLayer(app, service="demo", public=False), drain_s=3, routes=app) as live:
        idle, busy, half = connect(live), connect(live), connect(live)
        idle.sendall(post(b"/echo", b"abc"))
        read_answer(idle)
        half.sendall(b"GET /ear")
        busy.sendall(b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(0.1)

        live.stop.set()
        answer, _ = read_answer(busy)

        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert is_closed(idle)
        assert is_closed(half)
        live.thread.join(5)
        assert not live.thread.is_alive()
        with pytest.raises(ConnectionRefusedError):
            connect(live)


def test_a_drain_that_runs_out_of_time_tells_the_client_and_ends() -> None:
    app = App()
    with running(EdgeLayer(app, service="demo", public=False), drain_s=1, routes=app) as live:
        sock = connect(live)
        sock.sendall(b"GET /endless HTTP/1.1\r\n" + HOST + b"\r\n")
        time.sleep(0.1)
        started = time.monotonic()

        live.stop.set()
        answer, _ = read_answer(sock)
        live.thread.join(5)

        assert answer.status == 503
        assert time.monotonic() - started < 3
        assert not live.thread.is_alive()


async def test_an_application_that_cannot_begin_ends_the_start_with_an_error() -> None:
    class NoDatabase(Rejection):
        code = "TEST_NO_DATABASE"

    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        if not App().reached:
            raise NoDatabase("no database")
        yield

    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))

    with pytest.raises(ServerStartError):
        await serve(with_lifespan(App(), broken), [sock], drain_s=1, stop=asyncio.Event())
    sock.close()


PROCESS = """
import socket, sys, uvloop
from contextlib import asynccontextmanager
from payflow.platform.http.asgi import with_lifespan
from payflow.platform.http.server import serve
from tests.security.http_live import App

@asynccontextmanager
async def lifespan():
    yield
    print("closed", flush=True)

sock = socket.socket()
sock.bind(("127.0.0.1", 0))
ready = lambda: print(sock.getsockname()[1], flush=True)
uvloop.run(serve(with_lifespan(App(), lifespan), [sock], drain_s=2, on_ready=ready))
print("tidied up", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_told_to_stop_finishes_its_request_and_tidies_up(number: signal.Signals) -> None:
    command = [sys.executable, "-c", PROCESS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
            sock.sendall(b"GET /slow HTTP/1.1\r\n" + HOST + b"\r\n")
            time.sleep(0.1)

            process.send_signal(number)
            answer, _ = read_answer(sock)

        assert answer.status == 200
        assert process.wait(5) == 0
        assert process.stdout.read() == "closed\ntidied up\n"
        assert process.stderr.read() == ""
