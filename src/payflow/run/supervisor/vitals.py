"""What the kernel says of a process that leaves questions unanswered: does it do nothing, or can it do nothing?"""

from __future__ import annotations

from typing import Final, NamedTuple

import psutil

# A loop that turns without end takes nearly a processor; who waits for his turn on a busy machine takes little.
_SPINS_SHARE: Final = 0.5
_CANNOT_RUN: Final = frozenset({psutil.STATUS_RUNNING, psutil.STATUS_DISK_SLEEP, psutil.STATUS_WAKING})


class Vitals(NamedTuple):
    """One look at a process: psutil's name of its state, and the processor seconds that it has used so far."""

    status: str
    cpu_s: float


def vitals_of(pid: int) -> Vitals | None:
    """Look at a process; None where it is gone or not ours to look at."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            used = process.cpu_times()
            return Vitals(process.status(), used.user + used.system)
    except psutil.Error:
        return None


def is_starved(before: Vitals | None, now: Vitals | None, *, elapsed_s: float) -> bool:
    """Whether the process would go on if the machine let it: it wants a processor and hardly gets one, or it waits for
    a disk. One that is stopped, asleep over unanswered questions, or turning without end is not starved."""
    if before is None or now is None or now.status not in _CANNOT_RUN:
        return False
    return now.cpu_s - before.cpu_s < elapsed_s * _SPINS_SHARE
