"""Who is hung and who is only slow: real connections, and a clock that the test moves."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator

import pytest

from payflow.run.supervisor.liveness import LiveWatch

HOST = "127.0.0.1"
ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What a hung process has: a queue that takes connections, and nobody who accepts them."""
    with socket.create_server((HOST, 0)) as made:
        yield made


@pytest.fixture
def watch(listener: socket.socket) -> Iterator[LiveWatch]:
    made = LiveWatch(host=HOST)
    made.watch(name="risk", port=listener.getsockname()[1], now=0.0)
    yield made
    made.close()


def look(watch: LiveWatch, *, since: float, until: float) -> list[tuple[str, float, float]]:
    """Look every half second: who hangs, since when, and when that was found."""
    found = []
    for step in range(int(since * 2), int(until * 2) + 1):
        found += [(name, since_s, step / 2) for name, since_s in watch.hung_now(now=step / 2)]
    return found


def answer_one(listener: socket.socket, watch: LiveWatch) -> None:
    """Accept one connection, answer it, and wait until the supervisor's side can read that."""
    connection, _ = listener.accept()
    with connection:
        connection.recv(4096)
        connection.sendall(ANSWER)
        select.select([one for one, _ in watch.waits_for()], [], [], 2.0)


def test_who_leaves_three_questions_unanswered_for_five_seconds_hangs_and_is_named_once(watch: LiveWatch) -> None:
    found = look(watch, since=0, until=30)

    assert found == [("risk", 0.0, 7.0)]


def test_one_late_answer_is_a_sign_of_life_even_when_it_is_a_refusal(listener: socket.socket, watch: LiveWatch) -> None:
    before = look(watch, since=0, until=6.5)
    answer_one(listener, watch)
    after = look(watch, since=7, until=13)

    assert before == []
    assert after == []


def test_who_hangs_after_an_answer_hangs_since_that_answer(listener: socket.socket, watch: LiveWatch) -> None:
    look(watch, since=0, until=2)
    answer_one(listener, watch)

    found = look(watch, since=2.5, until=20)

    assert [(name, since) for name, since, _ in found] == [("risk", 2.5)]


def test_a_pause_of_the_supervisor_or_of_the_whole_machine_is_nobodys_silence(watch: LiveWatch) -> None:
    look(watch, since=0, until=5)

    after_the_pause = watch.hung_now(now=4000.0)
    soon_after = look(watch, since=4000.5, until=4005)

    assert after_the_pause == []
    assert soon_after == []


def test_nobody_is_asked_after_being_forgotten(watch: LiveWatch) -> None:
    look(watch, since=0, until=3)

    watch.forget("risk")

    assert look(watch, since=3.5, until=20) == []
    assert watch.waits_for() == []
    assert watch.next_at() is None
