"""What `payflow dev kill` does: a process of a running instance is ended, again each time it comes back."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from typing import Final

from payflow.run.control import require_running
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.supervisor.status import ProcessStatus, read_status

_POLL_S: Final = 0.02


def kill(instance: Instance, name: str, *, for_s: float) -> int:
    """End the process of this name once, and for so many seconds whenever it is there again; how often it was.

    Raises StartError where the instance does not run or has no such process.
    """
    names = [one.name for one in require_running(instance).processes]
    if name not in names:
        raise StartError(f"There is no process {name}: choose one of {', '.join(names)}.")
    killed: set[int] = set()
    ends_at = time.monotonic() + for_s
    while not killed or time.monotonic() < ends_at:
        found = _find(instance, name)
        if found is None:
            break  # the instance was stopped meanwhile
        if found.pid is not None and found.pid not in killed:
            with suppress(ProcessLookupError):
                os.kill(found.pid, signal.SIGKILL)
            killed.add(found.pid)
        time.sleep(_POLL_S)
    return len(killed)


def told(name: str, *, times: int, for_s: float) -> str:
    """What `kill` has done, as a sentence."""
    killed = "killed once" if times == 1 else f"killed {times} times"
    return f"{name} was kept down for {for_s:g} s ({killed})." if for_s else f"{name} was {killed}."


def _find(instance: Instance, name: str) -> ProcessStatus | None:
    status = read_status(instance)
    return next((one for one in status.processes if one.name == name), None) if status else None
