"""The supervisor with real servers and real forks: what is killed comes back, what is stopped is gone."""

from __future__ import annotations

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from payflow.run import control
from payflow.run.errors import StartError
from tests.faults.tiny import NAMES, Tiny, is_alive, until
from tests.support.ports import is_unused


def test_all_processes_become_healthy_and_both_gateways_answer_at_the_public_port(tiny: Tiny) -> None:
    done = tiny.run("--detach")

    status = tiny.status()
    answers = {tiny.answer().split()[0] for _ in range(40)}
    assert done.returncode == 0
    assert [process.name for process in status.processes] == NAMES
    assert {process.state for process in status.processes} == {"healthy"}
    assert all(f"✓ {name}" in done.stdout for name in NAMES)
    assert answers == {"gateway-1", "gateway-2"}


def test_a_killed_service_is_started_again_and_its_clients_only_wait(tiny: Tiny) -> None:
    tiny.start()
    before = tiny.process("alpha")
    assert before.pid is not None

    os.kill(before.pid, signal.SIGKILL)
    answer = tiny.answer("alpha")

    until(lambda: tiny.process("alpha").state == "healthy")
    after = tiny.process("alpha")
    assert answer == f"alpha {after.pid}"
    assert after.pid != before.pid
    assert after.restarts == 1
    assert "alpha ended with signal 9 (SIGKILL); it is started again in 0.1 s." in tiny.console()
    assert "alpha is healthy again." in tiny.console()


def test_a_service_that_hangs_is_killed_and_started_again_and_its_clients_only_wait(tiny: Tiny) -> None:
    tiny.start()
    before = tiny.process("alpha").pid
    assert before is not None

    os.kill(before, signal.SIGSTOP)

    until(lambda: tiny.process("alpha").restarts == 1 and tiny.process("alpha").state == "healthy", seconds=15)
    after = tiny.process("alpha").pid
    assert tiny.answer("alpha") == f"alpha {after}"
    assert after != before
    assert not is_alive(before)
    lines = [line for line in tiny.console().splitlines() if "alpha" in line and "killed" in line]
    assert len(lines) == 1
    assert re.search(r"alpha did not answer for [5-9]\.\d s and was killed; it is started again in 0\.1 s\.", lines[0])
    assert {process.name for process in tiny.status().processes if process.restarts} == {"alpha"}


def test_a_gateway_that_was_killed_keeps_its_share_of_the_public_port(tiny: Tiny) -> None:
    tiny.start()
    pid = tiny.process("gateway-1").pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)
    answers = [tiny.answer() for _ in range(40)]

    until(lambda: tiny.process("gateway-1").state == "healthy")
    assert {answer.split()[0] for answer in answers} == {"gateway-1", "gateway-2"}
    assert f"gateway-1 {pid}" not in answers


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_a_killed_server_is_started_again_on_the_same_data(tiny: Tiny, server: str) -> None:
    tiny.start()
    pid = tiny.process(server).pid
    assert pid is not None

    os.kill(pid, signal.SIGKILL)

    until(lambda: tiny.process(server).restarts >= 1 and tiny.process(server).pid not in (None, pid))
    socket_name = ".s.PGSQL.5432" if server == "postgres" else "valkey.sock"
    until(lambda: accepts(tiny.instance.run_dir / "sockets" / socket_name))
    assert f"{server} ended with signal 9" in tiny.console()


def accepts(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


class Asking:
    """Asks one process again and again, and keeps who answered and what failed."""

    def __init__(self, tiny: Tiny, name: str) -> None:
        self._tiny, self._name = tiny, name
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.answers: list[str] = []
        self.failures: list[str] = []

    def __enter__(self) -> Asking:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                self.answers.append(self._tiny.answer(self._name))
            except OSError as error:
                self.failures.append(repr(error))


def test_a_restart_replaces_one_process_after_the_other_and_nobody_is_refused(tiny: Tiny) -> None:
    tiny.start()
    before = {name: tiny.process(name).pid for name in NAMES}

    with Asking(tiny, "alpha") as asking:
        done = list(control.restart(tiny.instance, ["gateway-2", "alpha"]))

    after = {name: tiny.process(name).pid for name in NAMES}
    assert done == ["gateway-2", "alpha"]
    assert {name for name in NAMES if before[name] != after[name]} == {"gateway-2", "alpha"}
    assert asking.failures == []
    assert {f"alpha {before['alpha']}", f"alpha {after['alpha']}"} == set(asking.answers)
    assert not is_alive(before["alpha"] or 0)
    assert {(process.state, process.restarts) for process in tiny.status().processes} == {("healthy", 0)}
    assert {tiny.answer().split()[0] for _ in range(40)} == {"gateway-1", "gateway-2"}


def test_a_new_process_that_cannot_start_changes_nothing(tiny: Tiny) -> None:
    tiny.start()
    before = tiny.process("alpha").pid
    (tiny.instance.data_dir / "broken-alpha").touch()

    with pytest.raises(StartError, match=r"alpha did not become ready: .*PAYFLOW_LIMT is no setting") as refused:
        list(control.restart(tiny.instance, ["alpha", "beta"]))

    assert tiny.answer("alpha") == f"alpha {before}"
    assert tiny.process("alpha").state == "healthy"
    assert "The one that was there goes on." in str(refused.value)
    (tiny.instance.data_dir / "broken-alpha").unlink()
    assert list(control.restart(tiny.instance, ["alpha"])) == ["alpha"]
    assert tiny.answer("alpha") != f"alpha {before}"


def test_a_process_that_dies_while_its_successor_starts_is_replaced_all_the_same(tiny: Tiny) -> None:
    tiny.start()
    before = tiny.process("alpha").pid
    assert before is not None
    restart = control.restart(tiny.instance, ["alpha"])

    os.kill(before, signal.SIGKILL)

    assert list(restart) == ["alpha"]
    until(lambda: tiny.process("alpha").state == "healthy")
    assert tiny.process("alpha").pid not in (None, before)
    assert tiny.answer("alpha") == f"alpha {tiny.process('alpha').pid}"


def test_a_stop_in_the_middle_of_a_restart_leaves_nothing_behind(tiny: Tiny) -> None:
    tiny.start(TINY_DEAF="alpha")
    pids = tiny.pids()
    restart = threading.Thread(target=lambda: suppressed(lambda: list(control.restart(tiny.instance, ["alpha"]))))
    restart.start()
    # The successor has taken over, and the old one does not end.
    until(lambda: tiny.process("alpha").pid not in pids)
    pids += tiny.pids()

    seconds = control.stop(tiny.instance)
    restart.join(10)

    assert seconds is not None
    assert seconds <= 6
    until(lambda: not any(is_alive(pid) for pid in pids), seconds=5)
    assert not tiny.instance.requests_pipe.exists()


def suppressed(work: Callable[[], object]) -> None:
    with suppress(StartError):
        work()


def test_nothing_outlives_a_killed_supervisor_and_the_next_start_recovers(tiny: Tiny) -> None:
    tiny.start()
    pids = tiny.pids()

    os.kill(tiny.status().pid, signal.SIGKILL)

    until(lambda: not any(is_alive(pid) for pid in pids), seconds=5)
    assert control.running(tiny.instance) is None
    assert tiny.start().state == "ready"


def test_a_stop_leaves_no_process_socket_or_lock_and_keeps_the_data(tiny: Tiny) -> None:
    tiny.start()
    pids = tiny.pids()

    seconds = control.stop(tiny.instance)
    again = tiny.run("--detach")

    assert seconds is not None
    assert seconds <= 5
    assert not any(is_alive(pid) for pid in pids)
    assert again.returncode == 0
    assert "demo data" not in again.stdout
    control.stop(tiny.instance)
    left = [path for path in tiny.instance.data_dir.rglob("*") if path.is_socket() or path.name in ("lock", "sockets")]
    assert left == []
    assert list(tiny.instance.run_dir.iterdir()) == []
    assert is_unused(tiny.instance.port)


def test_the_second_start_is_ready_within_six_seconds(tiny: Tiny) -> None:
    tiny.start()
    control.stop(tiny.instance)

    began_at = time.monotonic()
    tiny.start()

    assert time.monotonic() - began_at <= 6


def test_ctrl_c_stops_everything_in_order_and_ends_with_zero(tiny: Tiny) -> None:
    process = tiny.in_foreground()
    pids = tiny.pids()

    began_at = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=10)

    assert process.returncode == 0
    assert time.monotonic() - began_at <= 5
    assert "killed" not in output
    assert "ended with" not in output
    assert not any(is_alive(pid) for pid in pids)


def test_a_service_that_ignores_the_stop_is_killed_within_the_five_seconds(tiny: Tiny) -> None:
    tiny.start(TINY_DEAF="alpha")
    pids = tiny.pids()

    seconds = control.stop(tiny.instance)

    assert seconds is not None
    assert seconds <= 5
    assert not any(is_alive(pid) for pid in pids)
    assert "alpha did not stop in time and was killed." in tiny.console()
