"""The supervisor with real servers and real forks: what is killed comes back, what is stopped is gone."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from payflow.run import control
from payflow.run.embedded.places import remove_server_homes
from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance
from payflow.run.supervisor.status import InstanceStatus, ProcessStatus

SCRIPT = Path(__file__).with_name("tiny_instance.py")
NAMES = ["postgres", "valkey", "gateway-1", "gateway-2", "alpha", "beta"]


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def free_port_base() -> int:
    # Below the ephemeral range, and different for test processes that run side by side.
    for base in range(15000 + os.getpid() % 500 * 20, 32000, 20):
        if all(is_free(port) for port in range(base, base + 20)):
            return base
    raise RuntimeError("no free ports")


def until(condition: Callable[[], object], *, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Tiny:
    """An instance of the tiny services that a test starts and stops."""

    def __init__(self, data_dir: Path) -> None:
        base = free_port_base()
        self.instance: Instance = make_instance(data_dir=data_dir, port_base=base, port=base + 15)

    def run(self, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the script to its end; with --detach, until the instance is ready."""
        return subprocess.run(
            self._command(*options), env=self._environ(environ), capture_output=True, text=True, timeout=60
        )

    def start(self, **environ: str) -> InstanceStatus:
        """Start in the background; a failure fails the test with what was printed."""
        done = self.run("--detach", **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return self.status()

    def in_foreground(self, **environ: str) -> subprocess.Popen[str]:
        """Start in the foreground, in a process group of its own, and return when it is ready."""
        process = subprocess.Popen(
            self._command(),
            env=self._environ(environ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        while "READY" not in (line := process.stdout.readline()):
            assert line, "it ended before it was ready"
        return process

    def status(self) -> InstanceStatus:
        found = control.running(self.instance)
        assert found is not None
        return found

    def process(self, name: str) -> ProcessStatus:
        return next(process for process in self.status().processes if process.name == name)

    def pids(self) -> list[int]:
        """Every process of the instance, the servers' own children included."""
        supervisor = psutil.Process(self.status().pid)
        return [supervisor.pid, *(child.pid for child in supervisor.children(recursive=True))]

    def answer(self, name: str | None = None) -> str:
        """Who answers, as "NAME PID": at the public port, or at one process's own."""
        url = self.instance.public_url if name is None else self.process(name).url
        with urllib.request.urlopen(url, timeout=5) as response:
            return str(response.read().decode())

    def console(self) -> str:
        return self.instance.log_file("supervisor").read_text()

    def _command(self, *options: str) -> list[str]:
        ports = [str(self.instance.port_base), str(self.instance.port)]
        return [sys.executable, str(SCRIPT), str(self.instance.data_dir), *ports, *options]

    def _environ(self, further: dict[str, str]) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PAYFLOW_")}
        return {**kept, **further}


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can pass through, as /home and /srv are."""
    path = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def tiny(folder: Path) -> Iterator[Tiny]:
    made = Tiny(folder / "data")
    yield made
    control.stop(made.instance)


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
    assert is_free(tiny.instance.port)


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


def test_a_service_that_cannot_start_stops_the_start_with_its_own_reason(tiny: Tiny) -> None:
    done = tiny.run("--detach", TINY_BROKEN="beta")

    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "beta ended during the start with exit code 2: beta: PAYFLOW_LIMT is no setting"
    ]
    assert control.running(tiny.instance) is None
    assert is_free(tiny.instance.port)


def test_a_mistyped_setting_stops_the_start_and_names_the_one_that_was_meant(tiny: Tiny) -> None:
    done = tiny.run("--detach", PAYFLOW_LOG_LEVL="debug")

    assert done.returncode == 1
    assert "PAYFLOW_LOG_LEVL is no setting of Payflow: did you mean PAYFLOW_LOG_LEVEL?" in done.stderr


def test_a_malformed_setting_stops_the_start_and_says_what_is_expected(tiny: Tiny) -> None:
    done = tiny.run("--detach", PAYFLOW_POSTGRES_POOL_SIZE="many")

    assert done.returncode == 1
    assert done.stderr.strip() == "PAYFLOW_POSTGRES_POOL_SIZE='many': expected a whole number"


@pytest.mark.parametrize("wrong", [{"PAYFLOW_POSTGRES_POOL_SIZE": "many"}, {"PAYFLOW_LOG_LEVL": "debug"}])
def test_a_wrong_setting_is_found_before_a_database_is_made(tiny: Tiny, wrong: dict[str, str]) -> None:
    done = tiny.run("--detach", **wrong)

    assert done.returncode == 1
    assert not tiny.instance.log_file("postgres").exists()
    assert not tiny.instance.log_file("valkey").exists()
    assert not list(tiny.instance.data_dir.rglob("PG_VERSION"))


def test_production_takes_no_embedded_server(tiny: Tiny) -> None:
    done = tiny.run("--detach", PAYFLOW_ENV="production")

    assert done.returncode == 1
    assert "PAYFLOW_ENV=production uses no embedded server: set PAYFLOW_POSTGRES_URL" in done.stderr


@pytest.mark.parametrize(("offset", "option"), [(15, "--port"), (3, "--port-base")])
def test_a_taken_port_is_named_with_its_holder(tiny: Tiny, offset: int, option: str) -> None:
    with socket.create_server(("127.0.0.1", tiny.instance.port_base + offset)):
        done = tiny.run("--detach")

    assert done.returncode == 1
    line = done.stderr.strip()
    assert f"Port {tiny.instance.port_base + offset} is taken by " in line
    assert f"(pid {os.getpid()})" in line
    assert line.endswith(f"choose other ports with {option}.")
    assert control.running(tiny.instance) is None


def test_a_data_directory_in_use_is_refused_and_its_holder_named(tiny: Tiny) -> None:
    pid = tiny.start().pid

    done = tiny.run("--detach")

    assert done.returncode == 1
    assert f"is in use by pid {pid}" in done.stderr
    assert tiny.status().pid == pid


def test_two_instances_stand_side_by_side(tiny: Tiny, folder: Path) -> None:
    tiny.start()
    other = Tiny(folder / "other data")
    try:
        other.start()

        assert tiny.answer("alpha") != other.answer("alpha")
        assert set(tiny.pids()).isdisjoint(other.pids())
    finally:
        control.stop(other.instance)
    assert tiny.status().state == "ready"


def test_data_of_a_newer_version_is_left_alone(tiny: Tiny) -> None:
    tiny.instance.data_dir.mkdir(parents=True)
    tiny.instance.version_file.write_text(json.dumps({"format": 2, "postgres": 19}))

    done = tiny.run("--detach")

    assert done.returncode == 1
    assert "was written by a newer Payflow" in done.stderr
    assert not (tiny.instance.data_dir / "postgres").exists()


def test_a_folder_with_other_things_in_it_is_not_taken_for_a_data_directory(tiny: Tiny) -> None:
    tiny.instance.data_dir.mkdir(parents=True)
    (tiny.instance.data_dir / "thesis.tex").touch()

    done = tiny.run("--detach")

    assert done.returncode == 1
    assert "is not empty and no data directory of Payflow" in done.stderr


def test_a_long_path_gets_its_sockets_elsewhere_and_they_go_at_the_stop(folder: Path) -> None:
    tiny = Tiny(folder / ("deep folder " * 8) / "data")
    try:
        tiny.start()
        sockets = Path((tiny.instance.run_dir / "sockets.location").read_text().strip())
        mode = sockets.stat().st_mode & 0o777

        control.stop(tiny.instance)

        assert mode == 0o700
        assert not sockets.exists()
    finally:
        control.stop(tiny.instance)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a normal user's servers run as that user")
def test_as_root_below_a_closed_folder_the_database_goes_elsewhere_and_no_mode_changes(folder: Path) -> None:
    closed = folder / "closed"
    closed.mkdir(mode=0o700)
    tiny = Tiny(closed / "data")
    try:
        tiny.start()
        home = Path((tiny.instance.data_dir / "postgres.location").read_text().strip())
        postgres = psutil.Process(tiny.process("postgres").pid)

        assert closed.stat().st_mode & 0o777 == 0o700
        assert home.stat().st_mode & 0o777 == 0o700
        assert (home / "18" / "PG_VERSION").exists()
        assert postgres.uids().effective != 0
        assert psutil.Process(tiny.process("valkey").pid).uids().effective != 0
    finally:
        control.stop(tiny.instance)
        remove_server_homes(tiny.instance)
    assert not home.exists()


def test_secrets_are_readable_by_their_owner_only(tiny: Tiny) -> None:
    tiny.start()

    modes = {path: path.stat().st_mode & 0o077 for path in tiny.instance.secrets_dir.rglob("*") if path.is_file()}

    assert modes
    private = {path for path in modes if path.name != "services.jwks.json"}
    assert {path: modes[path] for path in private} == dict.fromkeys(private, 0)
    assert tiny.instance.secrets_dir.stat().st_mode & 0o077 == 0
