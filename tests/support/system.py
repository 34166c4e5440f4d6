"""A whole Payflow for tests: started by the launcher as a user starts it, on free ports and a directory of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

from payflow.run import control
from payflow.run.embedded.places import remove_server_homes
from payflow.run.instance import Instance, make_instance
from payflow.run.registry import COPIES_LAST_OFFSET, COPIES_OFFSET

ROOT: Final = Path(__file__).resolve().parents[2]
LAUNCHER: Final = ROOT / "payflow"
# Below the range from which the system takes ports for outgoing connections.
_FIRST_BASE, _LAST_BASE, _STEP = 20_000, 31_000, 100
_TAIL_LINES: Final = 15
_START_S: Final = 90

# Tests make many requests from one address, and wait for what a person would wait longer for.
RELAXED: Final = {
    "PAYFLOW_RATE_LIMIT_PER_IP": "1000000/15m",
    "PAYFLOW_RATE_LIMIT_PER_USER": "1000000/15m",
    "PAYFLOW_RATE_LIMIT_LOGIN_PER_IP": "1000000/15m",
    "PAYFLOW_BANK_ENQUIRY_S": "1",
    "PAYFLOW_BANK_PAUSE_FIRST_S": "0.2",
    "PAYFLOW_BANK_PAUSE_LONGEST_S": "0.5",
    "PAYFLOW_BANK_TIMEOUT_S": "0.7",
    "PAYFLOW_BANK_WAIT_S": "0.7",
    "PAYFLOW_BANK_DUTY_PAUSE_S": "0.1",
}


class StartFailed(AssertionError):
    """The instance did not start. The tails of its logs are in the output of the first test that asked for it."""


class System:
    """A running instance as a test sees it."""

    def __init__(self, *, instance: Instance, environ: dict[str, str], options: Sequence[str] = ()) -> None:
        self.instance = instance
        self._environ = environ
        self._options = options

    @property
    def url(self) -> str:
        """The public address, both gateways behind it."""
        return f"http://127.0.0.1:{self.instance.port}"

    @property
    def gateway_urls(self) -> tuple[str, str]:
        """The gateways' own ports, to ask one of them and not the other."""
        return (self.service_url(1), self.service_url(2))

    @property
    def other_bank_url(self) -> str:
        """The simulated other bank's control address."""
        return self.service_url(12)

    def service_url(self, offset: int) -> str:
        """The own port of the process with this offset from the port base."""
        return f"http://127.0.0.1:{self.instance.port_base + offset}"

    def operator_password(self, username: str) -> str:
        """The generated password of an operator."""
        lines = self.instance.operators_file.read_text(encoding="utf-8").splitlines()
        return dict(line.split(" ", 1) for line in lines)[username]

    def run(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a verb of the command line on this instance."""
        return subprocess.run(
            [str(LAUNCHER), *arguments, "--data-dir", str(self.instance.data_dir)],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def processes(self) -> dict[str, dict[str, Any]]:
        """Every process by name, as `payflow status --json` tells."""
        status = json.loads(self.run("status", "--json").stdout)
        return {process["name"]: process for process in status["processes"]}

    def start(self) -> None:
        """Start and wait until everything is ready. Raises StartFailed, having printed the logs' tails."""
        ports = ["--port-base", str(self.instance.port_base), "--port", str(self.instance.port)]
        done = self.run("up", "-d", *ports, *self._options, timeout_s=_START_S * (3 if self._options else 1))
        if done.returncode != 0:
            # Printed, not raised: every test of the session fails with this exception, and the logs are wanted once.
            print(f"{done.stdout}{self.log_tails()}", file=sys.stderr)
            raise StartFailed(f"up failed ({done.returncode}): {done.stderr.strip()}")

    def stop(self) -> None:
        """Stop whatever of it still runs."""
        control.stop(self.instance)

    def logged_bugs(self) -> list[str]:
        """What the services logged that none of them should ever log: each error once, with how often and where."""
        bugs: Counter[str] = Counter()
        for log in sorted(self.instance.logs_dir.glob("*.log")):
            for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
                if '"message":"unhandled_exception"' in line:
                    entry = json.loads(line)
                    bugs[f"{log.name}: {entry.get('error.message')} at {entry.get('payflow.at')}"] += 1
                elif line.startswith("Traceback "):
                    bugs[f"{log.name}: a traceback"] += 1
        return [f"{count} x {bug}" for bug, count in bugs.items()]

    def log_tails(self) -> str:
        """The last lines of every log."""
        tails = []
        for log in sorted(self.instance.logs_dir.glob("*.log")):
            lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
            tails.append("\n".join([f"--- {log.name}", *(line[:400] for line in lines)]))
        return "\n".join(tails)


@contextmanager
def running_system(
    *options: str, environ: Mapping[str, str] | None = None, inside: Path | None = None, **settings: str
) -> Iterator[System]:
    """A started instance with these settings (`RATE_LIMIT_PER_IP="5/15m"`); stopped and removed at the end.

    `options` go to `up`, whose environment has `environ` too. `inside`: where its directory is made, if not where
    temporary ones are.
    """
    folder = Path(tempfile.mkdtemp(prefix="payflow-journey-", dir=inside))
    # The database server runs as another user where the tests are root's.
    folder.chmod(0o755)
    base = free_port_base()
    instance = make_instance(data_dir=folder / "data", port_base=base, port=base + 20)
    system = System(instance=instance, environ={**_environ(settings), **(environ or {})}, options=options)
    try:
        system.start()
        yield system
    finally:
        system.stop()
        remove_server_homes(instance)
        shutil.rmtree(folder, ignore_errors=True)


def free_port_base() -> int:
    """A port base with room for an instance: other instances on this machine, tests included, are left alone."""
    start = _FIRST_BASE + (os.getpid() * _STEP) % (_LAST_BASE - _FIRST_BASE)
    bases: list[int] = [*range(start, _LAST_BASE, _STEP), *range(_FIRST_BASE, start, _STEP)]
    for base in bases:
        copies = range(base + COPIES_OFFSET, base + COPIES_LAST_OFFSET + 1)
        if all(_is_free(port) for port in (*range(base + 1, base + 21), *copies)):
            return base
    raise RuntimeError("no free ports")


def kill(pid: int) -> None:
    """End a process by SIGKILL and see it gone. Raises AssertionError when it lives on."""
    process = psutil.Process(pid)
    process.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE or not process.is_running():
                return
        except psutil.NoSuchProcess:
            return
        time.sleep(0.005)
    raise AssertionError(f"pid {pid} survived SIGKILL")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _environ(settings: dict[str, str]) -> dict[str, str]:
    """This process's environment without anybody else's settings of Payflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAYFLOW_")}
    kept |= {name: value for name, value in os.environ.items() if name in ("PAYFLOW_PYTHON", "PAYFLOW_VENV")}
    return kept | {name if name.startswith("PAYFLOW_") else f"PAYFLOW_{name}": text for name, text in settings.items()}
