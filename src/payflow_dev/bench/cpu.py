"""CPU time by process: who spends what on a payment."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

import msgspec
import psutil

from payflow.run.supervisor.status import InstanceStatus

_SAMPLE_S: Final = 0.25
# Above what the instance takes when nobody pays: half as much again, and a little for chance.
_QUIET_FACTOR: Final = 1.5
_QUIET_SLACK: Final = 0.05


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """CPU seconds of the whole machine: at work, and taken away by its host."""

    busy_s: float
    stolen_s: float


def machine_cpu() -> Machine:
    """What all cores together have spent since the start of the machine."""
    times = psutil.cpu_times()
    stolen = float(getattr(times, "steal", 0.0))
    idle = times.idle + float(getattr(times, "iowait", 0.0))
    counted_twice = float(getattr(times, "guest", 0.0)) + float(getattr(times, "guest_nice", 0.0))
    return Machine(busy_s=sum(times) - idle - stolen - counted_twice, stolen_s=stolen)


def cpu_by_process(status: InstanceStatus) -> dict[str, float]:
    """CPU seconds since its start of every process of an instance, a server's own children included."""
    pids = {"supervisor": status.pid}
    pids |= {process.name: process.pid for process in status.processes if process.pid is not None}
    servers = {process.name for process in status.processes if process.kind == "server"}
    found = {}
    for name, pid in pids.items():
        with suppress(psutil.Error):
            found[name] = _cpu_s(psutil.Process(pid), with_children=name in servers)
    return found


def _cpu_s(process: psutil.Process, *, with_children: bool) -> float:
    times = process.cpu_times()
    total = float(times.user + times.system)
    if with_children:
        # Of the children that ended the kernel keeps the sum.
        total += times.children_user + times.children_system
        for child in process.children(recursive=True):
            with suppress(psutil.Error):
                spent = child.cpu_times()
                total += spent.user + spent.system
    return total


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds between two readings; a process that was started again counts from its start."""
    return {
        name: round(seconds - (before.get(name, 0.0) if before.get(name, 0.0) <= seconds else 0.0), 3)
        for name, seconds in after.items()
    }


def idle_load(status: InstanceStatus, *, seconds: float = 1.5) -> float:
    """CPU seconds per second that the instance takes when nobody pays."""
    before, began_at = sum(cpu_by_process(status).values()), time.monotonic()
    time.sleep(seconds)
    return max(0.0, sum(cpu_by_process(status).values()) - before) / (time.monotonic() - began_at)


def wait_until_quiet(
    status: InstanceStatus, *, idle: float, seconds_max: float, tick: Callable[[], None]
) -> float | None:
    """Return when the instance has caught up with what a step left behind: events, audit rows, notifications.

    Quiet is three samples in a row near `idle`, the load before the first payment. Returns the seconds until the
    quiet began, or None when it did not begin in time.
    """
    began_at = time.monotonic()
    quiet_at, last, last_at = began_at, sum(cpu_by_process(status).values()), began_at
    quiet_samples = 0
    while quiet_samples < 3:
        time.sleep(_SAMPLE_S)
        tick()
        now, total = time.monotonic(), sum(cpu_by_process(status).values())
        if (total - last) / (now - last_at) <= idle * _QUIET_FACTOR + _QUIET_SLACK:
            quiet_samples += 1
        else:
            quiet_samples, quiet_at = 0, now
        last, last_at = total, now
        if now - began_at > seconds_max:
            return None
    return quiet_at - began_at
