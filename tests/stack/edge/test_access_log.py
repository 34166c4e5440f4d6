"""What the edge writes down of a request: enough to find it, nothing that a client put into it."""

from __future__ import annotations

import http.client
import ssl
import time
import urllib.request

from payflow_dev.deploy.log_fields import edge_fields
from tests.support.nginx import Nginx
from tests.support.raw_http import ask, request
from tests.support.recorder import Gateways

SECRET = "DE02120300000000202051"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def last_line(nginx: Nginx, lines_before: int) -> dict[str, object]:
    """The last line, once there are more than so many. A line is written after the answer was sent."""
    deadline = time.monotonic() + 5
    while len(log := nginx.log()) <= lines_before:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return dict(log[-1])


def test_a_line_tells_what_an_operator_asks_for(nginx: Nginx, gateways: Gateways) -> None:
    before = len(nginx.log())

    ask(nginx.http, request("GET", f"/accounts/{SECRET}/entries", f"traceparent: {TRACE}", "X-Request-Id: r-1"))

    line = last_line(nginx, before)
    assert line["message"] == "edge.request"
    assert (line["http.request.method"], line["url.path"]) == ("GET", "/accounts/{number}/entries")
    assert line["http.response.status_code"] == 200
    assert (line["trace.id"], line["http.request.id"]) == (TRACE[3:35], "r-1")
    assert (line["client.ip"], line["url.scheme"], line["http.version"]) == ("127.0.0.1", "http", "1.1")
    assert line["tls.version"] == ""
    assert line["payflow.upstream"] in gateways.addresses
    assert line["payflow.upstream_status"] == "200"
    assert line.keys() == edge_fields()


def test_a_line_tells_the_version_of_tls(nginx: Nginx) -> None:
    before = len(nginx.log())
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

    with urllib.request.urlopen(f"{nginx.secure_url}/live", timeout=10, context=trusting):
        pass

    line = last_line(nginx, before)
    assert (line["url.scheme"], line["tls.version"]) == ("https", "1.3")


def test_a_duration_is_in_nanoseconds(nginx: Nginx, gateways: Gateways) -> None:
    """NGINX tells seconds with three decimals."""
    before = len(nginx.log())
    connection = http.client.HTTPConnection("127.0.0.1", nginx.http, timeout=10)
    began_at = time.monotonic()
    connection.putrequest("POST", "/auth/login")
    connection.putheader("Content-Length", "2")
    connection.endheaders()
    time.sleep(0.25)
    connection.send(b"{}")
    connection.getresponse().read()
    took_ns = (time.monotonic() - began_at) * 1e9
    connection.close()

    duration_ns = last_line(nginx, before)["event.duration"]

    assert isinstance(duration_ns, int)
    assert 0.24e9 < duration_ns <= took_ns + 5e6


def test_nothing_of_a_client_is_written_down(nginx: Nginx) -> None:
    before = len(nginx.log())
    fields = (f"Authorization: Bearer {SECRET}", f"Cookie: a={SECRET}", f"User-Agent: {SECRET}", f"Referer: {SECRET}")
    requests = [
        request("GET", f"/accounts/{SECRET}?token={SECRET}", *fields),
        request("POST", "/auth/login", *fields, body=b'{"password":"%s"}' % SECRET.encode()),
        request("GET", f"/{SECRET}?{SECRET}"),
        request(SECRET, "/payments"),
        request("GET", "/payments", f"X-Request-Id: {SECRET}\\"),
        request("GET", "/payments", f"Bad {SECRET}: 1"),
        request("GET", f"/payments/die?{SECRET}"),
        request("GET", f"/payments/{SECRET}", host=f"{SECRET}/x"),
        request("GET", f"http://{SECRET}/payments"),
        request("GET", "/payments", "Cookie: " + SECRET * 2000),
    ]

    for data in requests:
        ask(nginx.http, data)
    last_line(nginx, before + len(requests) - 1)

    written = (nginx.folder / "access.log").read_text() + nginx.errors()
    assert SECRET.lower() not in written.lower()


def test_a_line_stays_one_line_whatever_was_sent(nginx: Nginx) -> None:
    before = len(nginx.log())

    ask(nginx.http, request("GET", '/payments/%22%0a{"a":1}?x=%0a"', 'X-Request-Id: "}\\n'))

    assert last_line(nginx, before)["url.path"] == "/payments/{transaction_id}"
