"""Who is hung and who is only slow: real connections, and a clock that the test moves."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from payflow.run.supervisor.liveness import LiveWatch
from payflow.run.supervisor.vitals import Vitals, is_starved, vitals_of

HOST = "127.0.0.1"
ANSWER = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """What a hung process has: a queue that takes connections, and nobody who accepts them."""
    with socket.create_server((HOST, 0)) as made:
        yield made


class Looks:
    """What the kernel says of the process, whichever it is."""

    def __init__(self) -> None:
        self.now: Vitals | None = Vitals(psutil.STATUS_SLEEPING, 1.0)

    def __call__(self, pid: int) -> Vitals | None:
        return self.now


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def watch(listener: socket.socket, looks: Looks) -> Iterator[LiveWatch]:
    made = LiveWatch(host=HOST, look_at=looks)
    made.watch(name="risk", pid=1, port=listener.getsockname()[1], now=0.0)
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


@pytest.mark.parametrize(
    "vitals",
    [
        Vitals(psutil.STATUS_STOPPED, 1.0),
        Vitals(psutil.STATUS_SLEEPING, 1.1),
        Vitals(psutil.STATUS_RUNNING, 7.9),  # turns without end
        None,
    ],
)
def test_who_does_nothing_though_it_could_hangs_after_five_seconds(
    watch: LiveWatch, looks: Looks, vitals: Vitals | None
) -> None:
    looks.now = vitals

    assert look(watch, since=0, until=30) == [("risk", 0.0, 7.0)]


@pytest.mark.parametrize("status", [psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP])
def test_whom_the_machine_keeps_from_running_is_given_thirty_seconds(
    watch: LiveWatch, looks: Looks, status: str
) -> None:
    looks.now = Vitals(status, 1.2)

    assert look(watch, since=0, until=60) == [("risk", 0.0, 32.0)]


def test_who_stops_while_it_is_excused_hangs_at_the_next_look(watch: LiveWatch, looks: Looks) -> None:
    looks.now = Vitals(psutil.STATUS_RUNNING, 1.2)
    before = look(watch, since=0, until=12)
    looks.now = Vitals(psutil.STATUS_STOPPED, 1.2)

    assert before == []
    assert look(watch, since=12.5, until=20) == [("risk", 0.0, 12.5)]


def test_the_supervisor_sleeps_between_two_looks_at_a_starved_process(watch: LiveWatch, looks: Looks) -> None:
    looks.now = Vitals(psutil.STATUS_RUNNING, 1.2)

    look(watch, since=0, until=12)

    due = watch.next_at()
    assert due is not None
    assert due > 12


def test_a_real_process_is_looked_at() -> None:
    asleep = subprocess.Popen([sys.executable, "-c", "import time; print(flush=True); time.sleep(60)"], stdout=-1)
    spinning = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        assert asleep.stdout is not None
        asleep.stdout.readline()
        before = {one.pid: vitals_of(one.pid) for one in (asleep, spinning)}
        os.kill(asleep.pid, signal.SIGSTOP)
        time.sleep(0.5)
        after = {one.pid: vitals_of(one.pid) for one in (asleep, spinning)}
        stopped, busy = after[asleep.pid], after[spinning.pid]
        assert stopped is not None
        assert busy is not None
        assert stopped.status == psutil.STATUS_STOPPED
        assert busy.status == psutil.STATUS_RUNNING
        # What it got of half a second: all of it here is a loop, hardly anything of an hour is starvation.
        assert not is_starved(before[asleep.pid], stopped, elapsed_s=3600.0)
        assert not is_starved(before[spinning.pid], busy, elapsed_s=0.0)
        assert is_starved(before[spinning.pid], busy, elapsed_s=3600.0)
    finally:
        for one in (asleep, spinning):
            one.kill()
            one.wait()
    assert vitals_of(spinning.pid) is None
