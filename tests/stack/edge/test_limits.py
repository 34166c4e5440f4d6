"""How much one client may send, and what it is told beyond that."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.nginx import Nginx, running_nginx
from tests.support.raw_http import ask, connection, request
from tests.support.recorder import Gateways

BODY_MAX = 64 * 1024


def test_a_body_of_64_kb_passes(nginx: Nginx, gateways: Gateways) -> None:
    assert ask(nginx.http, request("POST", "/payment/confirm", body=b"a" * BODY_MAX)).status == 200
    assert len(gateways.the_one.body) == BODY_MAX


def test_a_longer_one_is_refused_before_it_was_sent(nginx: Nginx, gateways: Gateways) -> None:
    answer = ask(nginx.http, request("POST", "/payment/confirm", f"Content-Length: {BODY_MAX + 1}"))

    assert (answer.status, answer.error) == (413, "PAYLOAD_TOO_LARGE")
    assert gateways.seen == []


def test_a_longer_one_in_chunks_is_refused_too(nginx: Nginx, gateways: Gateways) -> None:
    chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"

    answer = ask(nginx.http, request("POST", "/payment/confirm", "Transfer-Encoding: chunked") + chunk * 5)

    assert (answer.status, answer.error) == (413, "PAYLOAD_TOO_LARGE")
    assert gateways.seen == []


def test_a_file_of_payments_may_be_long_and_goes_on_as_it_comes(nginx: Nginx, gateways: Gateways) -> None:
    body = b"a" * (2 * 1024 * 1024)

    with connection(nginx.http) as link:
        link.send(request("POST", "/payments/bulk", f"Content-Length: {len(body)}") + body[:1000])
        until(lambda: len(gateways.seen) == 1)
        link.send(body[1000:])
        answer = link.read()

    assert answer is not None
    assert answer.status == 200
    assert len(gateways.the_one.body) == len(body)


def test_a_client_that_sends_too_much_is_told_when_to_come_back(nginx: Nginx, gateways: Gateways) -> None:
    told: Counter[int] = Counter()

    with connection(nginx.http, source="127.0.0.20") as link:
        answers = []
        for _ in range(800):
            link.send(request("GET", "/payments"))
            answers.append(link.read())
        told.update(answer.status for answer in answers if answer)
        others = ask(nginx.http, request("GET", "/payments"), source="127.0.0.21")

    refused = next(answer for answer in answers if answer and answer.status == 429)
    assert told.keys() == {200, 429}
    assert told[200] >= 400
    assert refused.error == "RATE_LIMITED"
    assert refused.one("retry-after") == "1"
    assert others.status == 200
    assert len(gateways.seen) == told[200] + 1


def test_a_client_is_told_of_too_many_connections_as_well(hasty: Nginx, gateways: Gateways) -> None:
    with connection(hasty.http, source="127.0.0.30") as first, connection(hasty.http, source="127.0.0.30") as second:
        for link in (first, second):
            link.send(request("GET", "/payments/txn-1/events"))
        until(lambda: len(gateways.seen) == 2)
        answer = ask(hasty.http, request("GET", "/payments"), source="127.0.0.30")
        others = ask(hasty.http, request("GET", "/payments"), source="127.0.0.31")

    assert (answer.status, answer.error) == (429, "RATE_LIMITED")
    assert answer.one("retry-after") == "1"
    assert others.status == 200


def test_a_body_that_does_not_come_holds_no_gateway_and_ends(hasty: Nginx, gateways: Gateways) -> None:
    began_at = time.monotonic()

    with connection(hasty.http) as link:
        link.send(request("POST", "/payment/confirm", "Content-Length: 1000") + b"a" * 500)
        is_over = link.is_closed()
    took_s = time.monotonic() - began_at

    assert is_over
    assert 0.8 < took_s < 4
    assert gateways.seen == []


@pytest.fixture(scope="module")
def hasty(recorders: Gateways) -> Iterator[Nginx]:
    """An edge that allows two connections, and waits a second for a body."""
    changes = {"limit_conn connections 256;": "limit_conn connections 2;"}
    changes |= {"    client_body_timeout 15s;\n": "    client_body_timeout 1s;\n"}
    with running_nginx(recorders.addresses, **changes) as nginx:
        yield nginx


def until(is_true: object) -> None:
    """Wait for at most five seconds. Raises AssertionError."""
    deadline = time.monotonic() + 5
    while not is_true():
        assert time.monotonic() < deadline
        time.sleep(0.01)
