"""A full process refuses at the connection: cheaply, in the shape of every refusal, and keeping count of requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.health import HealthRoutes
from payflow.platform.http.turn_away import TURNED_AWAY, TurnAway
from tests.security.http_live import (
    App,
    Live,
    ask,
    chunked,
    connect,
    is_closed,
    post,
    read_answer,
    running,
)

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class Door:
    live: Live
    is_full: bool = True


@pytest.fixture
def door() -> Iterator[Door]:
    app = App()
    made = Door(live=None)
    turn_away = TurnAway(lambda _: made.is_full, lets_in=(b"/health", b"/live"))
    edge = EdgeLayer(HealthRoutes("demo", {}, set()).before(app), service="demo", public=True)
    with running(edge, routes=app, turn_away=turn_away) as live:
        made.live = live
        yield made


def test_a_request_to_a_full_process_is_told_so_as_a_problem_and_reaches_nothing(door: Door) -> None:
    before = TURNED_AWAY._value.get()

    answer = ask(door.live, post(b"/echo?x=1", b"{}", b"traceparent: " + TRACE))

    assert answer.status == 503
    assert (answer.problem["error"], answer.problem["instance"]) == ("OVERLOADED", "/echo")
    assert answer.problem["trace_id"] == TRACE[3:35].decode()
    assert answer.headers["traceresponse"].startswith("00-4bf92f3577b34da6a3ce929d0e0e4736-")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.names) == len(set(answer.names))
    assert door.live.app.reached == []
    assert TURNED_AWAY._value.get() == before + 1


def test_it_has_the_same_fields_as_a_refusal_that_went_the_usual_way(door: Door) -> None:
    turned_away = ask(door.live, post(b"/unavailable", b""))
    door.is_full = False

    usual = ask(door.live, post(b"/unavailable", b""))

    assert sorted(name.lower() for name in turned_away.names) == sorted(name.lower() for name in usual.names)
    assert turned_away.problem.keys() == usual.problem.keys()


def test_the_connection_goes_on_and_the_next_request_is_served_when_there_is_room(door: Door) -> None:
    with connect(door.live) as sock:
        sock.sendall(post(b"/echo", b"first"))
        first, rest = read_answer(sock)
        door.is_full = False
        sock.sendall(post(b"/echo", b"second"))
        second, _ = read_answer(sock, rest=rest)

    assert (first.status, second.status) == (503, 200)
    assert [body for _, _, body in door.live.app.reached] == [b"second"]


def test_requests_in_one_read_are_each_answered_once_and_in_order(door: Door) -> None:
    with connect(door.live) as sock:
        sock.sendall(post(b"/one", b"a") + post(b"/two", b"bb") + post(b"/three", b""))
        answers, rest = [], b""
        for _ in range(3):
            answer, rest = read_answer(sock, rest=rest)
            answers.append(answer.problem["instance"])

    assert answers == ["/one", "/two", "/three"]
    assert rest == b""


def test_a_body_that_comes_in_pieces_is_read_to_its_end_and_is_no_request(door: Door) -> None:
    smuggled = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"
    request = post(b"/echo", smuggled)
    with connect(door.live) as sock:
        sock.sendall(request[:-20])
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)
        sock.settimeout(5)
        sock.sendall(request[-20:])
        answer, rest = read_answer(sock)
        door.is_full = False
        sock.sendall(post(b"/echo", b"x"))
        after, _ = read_answer(sock, rest=rest)

    assert (answer.status, after.status) == (503, 200)
    assert [path for _, path, _ in door.live.app.reached] == ["/echo"]


def test_behind_an_answer_that_is_under_way_a_request_waits_for_its_turn(door: Door) -> None:
    door.is_full = False
    with connect(door.live) as sock:
        sock.sendall(post(b"/slow", b""))
        time.sleep(0.2)
        door.is_full = True
        sock.sendall(post(b"/echo", b"x"))
        first, rest = read_answer(sock)
        second, _ = read_answer(sock, rest=rest)

    assert (first.status, second.status) == (200, 200)


def test_a_full_process_still_says_that_it_lives(door: Door) -> None:
    assert ask(door.live, b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n").status == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        chunked(b"/echo", b"2\r\n{}\r\n0\r\n\r\n"),
        post(b"/echo", b"{}", b"Expect: 100-continue"),
        post(b"/echo", b"x" * (64 * 1024 + 1)),
    ],
    ids=["length unknown", "waits for a word", "too long"],
)
def test_what_is_not_plain_goes_the_usual_way(door: Door, request_bytes: bytes) -> None:
    answer = ask(door.live, request_bytes)

    assert answer.status in (100, 200, 413)


def test_a_head_that_breaks_the_rules_is_refused_for_that(door: Door) -> None:
    answer = ask(door.live, b"POST /echo HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}")

    assert answer.status == 400


@pytest.mark.parametrize(
    "head", [b"GET /echo HTTP/1.0\r\n\r\n", b"GET /echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"]
)
def test_a_client_that_wants_the_connection_closed_gets_that(door: Door, head: bytes) -> None:
    with connect(door.live) as sock:
        sock.sendall(head)
        answer, _ = read_answer(sock)
        assert is_closed(sock)

    assert (answer.status, answer.headers["connection"]) == (503, "close")


def test_an_answer_to_head_has_no_body(door: Door) -> None:
    with connect(door.live) as sock:
        sock.sendall(b"HEAD /echo HTTP/1.1\r\nHost: a\r\n\r\n")
        time.sleep(0.2)
        head, _, body = sock.recv(65536).partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 ")
    assert body == b""
