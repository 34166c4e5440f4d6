"""What a client is told when a gateway dies under its request: nothing is sent twice, nothing is claimed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.nginx import Nginx, running_nginx
from tests.support.ports import free_ports
from tests.support.raw_http import RawAnswer, ask, request
from tests.support.recorder import Gateways, Recorder, recording

WITH_KEY = "Idempotency-Key: k-1"


@pytest.fixture
def nginx(recorders: Gateways) -> Iterator[Nginx]:
    """An edge of a test's own: it remembers which gateways failed."""
    with running_nginx(recorders.addresses) as nginx:
        yield nginx


@pytest.fixture
def impatient(recorders: Gateways) -> Iterator[Nginx]:
    """The edge, waiting a second for an answer."""
    with running_nginx(recorders.addresses, **{"proxy_read_timeout 60s;": "proxy_read_timeout 1s;"}) as nginx:
        yield nginx


@pytest.fixture
def alone() -> Iterator[tuple[Nginx, Recorder]]:
    """An edge of which one gateway does not run."""
    with recording() as recorder:
        gone = f"127.0.0.1:{free_ports(1)[0]}"
        with running_nginx([gone, recorder.address]) as nginx:
            yield nginx, recorder


@pytest.fixture
def nobody() -> Iterator[Nginx]:
    """An edge without any gateway."""
    with running_nginx([f"127.0.0.1:{port}" for port in free_ports(2)]) as nginx:
        yield nginx


def assert_says_to_come_back(answer: RawAnswer, status: int, error: str) -> None:
    assert (answer.status, answer.error) == (status, error)
    assert answer.one("retry-after") == "1"
    assert answer.one("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_payment_that_a_gateway_may_have_taken_is_not_sent_again(
    nginx: Nginx, gateways: Gateways, method: str
) -> None:
    answer = ask(nginx.http, request(method, "/payments/die", WITH_KEY, body=b"{}"))

    assert_says_to_come_back(answer, 502, "UNKNOWN_OUTCOME")
    assert answer.problem["detail"].endswith("repeat with the same key to learn it.")
    assert gateways.the_one.body == b"{}"


def test_an_answer_that_does_not_come_is_no_reason_to_send_again(impatient: Nginx, gateways: Gateways) -> None:
    answer = ask(impatient.http, request("POST", "/payments/hang", WITH_KEY, body=b"{}"))

    assert_says_to_come_back(answer, 504, "UNKNOWN_OUTCOME")
    assert len(gateways.seen) == 1


@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
def test_what_may_be_repeated_is_asked_of_the_other_gateway(nginx: Nginx, gateways: Gateways, method: str) -> None:
    ask(nginx.http, request(method, "/payments/die"), has_body=method != "HEAD")

    assert (len(gateways.first.seen), len(gateways.second.seen)) == (1, 1)


def test_a_question_that_nobody_answers_changed_nothing(nginx: Nginx, gateways: Gateways) -> None:
    answer = ask(nginx.http, request("GET", "/payments/die"))

    assert_says_to_come_back(answer, 503, "SERVICE_UNAVAILABLE")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_gateway_that_is_not_there_costs_no_request(alone: tuple[Nginx, Recorder], method: str) -> None:
    nginx, recorder = alone

    answers = [ask(nginx.http, request(method, "/payment/confirm", WITH_KEY, body=b"{}")) for _ in range(20)]

    assert {answer.status for answer in answers} == {200}
    assert len(recorder.seen) == 20


def test_a_gateway_that_fails_again_and_again_is_left_out_for_a_while(alone: tuple[Nginx, Recorder]) -> None:
    nginx, _ = alone

    for _ in range(40):
        ask(nginx.http, request("GET", "/payments"))

    assert 1 <= sum("," in line["payflow.upstream"] for line in nginx.log()) <= 15


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_without_any_gateway_nothing_happened(nobody: Nginx, method: str) -> None:
    answers = [ask(nobody.http, request(method, "/payment/confirm", WITH_KEY, body=b"{}")) for _ in range(6)]

    for answer in answers:
        assert_says_to_come_back(answer, 503, "SERVICE_UNAVAILABLE")


def test_an_answer_that_breaks_off_stays_broken(nginx: Nginx, gateways: Gateways) -> None:
    with pytest.raises(EOFError):
        ask(nginx.http, request("GET", "/payments/half"))

    assert len(gateways.seen) == 1
