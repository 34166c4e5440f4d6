"""What the supervisor knows of each process it watches, and when a dead one is started again."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 5.0
HEALTHY_LONG_ENOUGH_S: Final = 3.0


class Stage(IntEnum):
    """The order of stopping: nobody may lose what it still needs."""

    GATEWAY = 0
    SERVICE = 1
    SERVER = 2


@dataclass(slots=True, kw_only=True)
class Child:
    """One watched process. `run(on_ready)` is called in the forked child, and calls `on_ready` if it takes requests;
    `port` is asked for its health, if there is one."""

    name: str
    service: str
    stage: Stage
    url: str
    log: Path
    run: Callable[[Callable[[], None]], object]
    port: int | None = None
    death_signal: signal.Signals = signal.SIGKILL
    stop_signal: signal.Signals = signal.SIGTERM
    pid: int | None = None
    restarts: int = 0
    started_at: float = 0.0
    healthy_at: float | None = None
    delay_s: float = BACKOFF_FIRST_S
    restart_at: float | None = None
    silent_since: float | None = None

    def began(self, *, pid: int, now: float) -> None:
        """The process was forked."""
        self.pid, self.started_at, self.restart_at, self.silent_since = pid, now, None, None
        # A server has no /health; it counts as healthy while it lives, and its clients find out the rest.
        self.healthy_at = now if self.port is None else None

    def kill_as_hung(self, *, silent_since: float) -> None:
        """End a process that lives and answers nothing; it was well until `silent_since`."""
        self.silent_since = silent_since
        self.send(signal.SIGKILL, to_group=True)

    def ended(self, *, now: float) -> float:
        """The process died; returns the seconds until its next start.

        The wait doubles from death to death, up to 5 s, and begins anew after three healthy seconds.
        """
        well_until = now if self.silent_since is None else self.silent_since
        if self.healthy_at is not None and well_until - self.healthy_at >= HEALTHY_LONG_ENOUGH_S:
            self.delay_s = BACKOFF_FIRST_S
        wait_s = self.delay_s
        self.delay_s = min(self.delay_s * 2, BACKOFF_MAX_S)
        self.pid, self.healthy_at, self.restart_at = None, None, now + wait_s
        self.restarts += 1
        return wait_s

    @property
    def state(self) -> str:
        """`healthy`, `starting`, `hung` (and killed), or `waiting` for its next start."""
        if self.pid is None:
            return "waiting"
        if self.silent_since is not None:
            return "hung"
        return "healthy" if self.healthy_at is not None else "starting"

    def send(self, number: signal.Signals, *, to_group: bool = False) -> None:
        """Signal the process, or its whole process group; a process that is gone already is no error."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                if to_group:
                    os.killpg(self.pid, number)
                else:
                    os.kill(self.pid, number)


def reap(pid: int) -> str | None:
    """How this child ended ("signal 9 (SIGKILL)", "exit code 1"), or None while it lives."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "gone"
    if done == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"signal {-code} ({signal.Signals(-code).name})" if -code in set(signal.Signals) else f"signal {-code}"
    return f"exit code {code}"
