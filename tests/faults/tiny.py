"""An instance of the tiny services as a test sees it, and what is asked about its processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import psutil

from payflow.run import control
from payflow.run.instance import Instance, make_instance
from payflow.run.supervisor.status import InstanceStatus, ProcessStatus
from tests.support.ports import is_unused

SCRIPT = Path(__file__).with_name("tiny_instance.py")
NAMES = ["postgres", "valkey", "gateway-1", "gateway-2", "alpha", "beta"]


def free_port_base() -> int:
    # Below the ephemeral range, and different for test processes that run side by side.
    for base in range(15000 + os.getpid() % 500 * 20, 32000, 20):
        if all(is_unused(port) for port in range(base, base + 20)):
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
