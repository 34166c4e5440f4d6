"""Starting, finding and stopping an instance from another process: what `down`, `demo` and `bench` need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from uuid import uuid4

import psutil

from payflow.run.datadir import lock_holder
from payflow.run.embedded.places import remove_socket_dir
from payflow.run.errors import StartError
from payflow.run.instance import Instance, command_for
from payflow.run.supervisor.requests import RestartProgress, send_request
from payflow.run.supervisor.status import InstanceStatus, read_status

_STOP_S = 7.0
_START_S = 300.0
# The longest that one process may take: to become ready, and to drain.
_RESTART_S = 90.0


def running(instance: Instance) -> InstanceStatus | None:
    """What runs on this data directory, or None. Its `.instance` has the real ports."""
    return read_status(instance)


def require_running(instance: Instance) -> InstanceStatus:
    """As `running`. Raises StartError saying how to start one."""
    status = running(instance)
    if status is None:
        raise StartError(none_runs_on(instance), exit_code=3)
    return status


def none_runs_on(instance: Instance) -> str:
    """That nothing runs there, and the command that changes it."""
    return f"No instance runs on {instance.data_dir}: start one with `{command_for(instance, 'up')}`."


def start(instance: Instance, *options: str, is_quiet: bool = True) -> InstanceStatus:
    """Start an instance in the background and return when it is ready; `options` go to `up`. Raises StartError with its
    own reason."""
    command = [sys.executable, "-m", "payflow.run.main", "up", "-d", "--data-dir", str(instance.data_dir)]
    command += ["--port-base", str(instance.port_base), "--port", str(instance.port), "--host", instance.host, *options]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL if is_quiet else None,
            stderr=subprocess.PIPE,
            text=True,
            timeout=_START_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StartError(f"The instance was not ready within {_START_S:.0f} s; see {instance.logs_dir}.") from None
    if done.returncode != 0:
        raise StartError(done.stderr.strip() or f"The instance did not start; see {instance.logs_dir}.")
    return require_running(instance)


def restart(instance: Instance, names: Sequence[str]) -> Iterator[str]:
    """Have processes replaced, one after the other, while the instance goes on; yields each name when it is done.

    Raises StartError when one does not become ready (the old one then goes on), or when it takes too long.
    """
    request_id = uuid4().hex
    require_running(instance)
    if not send_request(instance.requests_pipe, {"do": "restart", "id": request_id, "names": list(names)}):
        raise StartError("The supervisor of this instance takes no requests: stop and start it once.")
    told = 0
    deadline = time.monotonic() + _RESTART_S
    while True:
        progress = _progress_of(instance, request_id)
        if progress is not None:
            if len(progress.done) > told:
                deadline = time.monotonic() + _RESTART_S
            yield from progress.done[told:]
            told = len(progress.done)
            if progress.state == "failed":
                raise StartError(f"{progress.error} The one that was there goes on.")
            if progress.state == "done":
                return
        if time.monotonic() >= deadline:
            raise StartError(f"The restart does not go on: look at {instance.log_file('supervisor')}.")
        time.sleep(0.05)


def _progress_of(instance: Instance, request_id: str) -> RestartProgress | None:
    status = running(instance)
    if status is None:
        # Read while it was written, or really gone.
        time.sleep(0.2)
        status = require_running(instance)
    return status.restart if status.restart is not None and status.restart.id == request_id else None


def stop(instance: Instance) -> float | None:
    """Stop what runs on this data directory; returns the seconds it took, None when nothing ran.

    A supervisor that does not end in time is killed, and the kernel then ends its children.
    """
    began_at = time.monotonic()
    pid = lock_holder(instance)
    if pid is None:
        remove_socket_dir(instance)
        instance.status_file.unlink(missing_ok=True)
        return None
    for number, seconds in ((signal.SIGTERM, _STOP_S), (signal.SIGKILL, 2.0)):
        with suppress(ProcessLookupError):
            _signal(pid, number)
        if _is_over(instance, pid=pid, seconds=seconds):
            remove_socket_dir(instance)
            instance.lock_file.unlink(missing_ok=True)
            return time.monotonic() - began_at
    raise StartError(f"The supervisor (pid {pid}) does not end: look at {instance.log_file('supervisor')}.")


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except PermissionError:
        raise StartError(f"The supervisor (pid {pid}) belongs to another user: stop it as that user.") from None


def _is_over(instance: Instance, *, pid: int, seconds: float) -> bool:
    """Whether the supervisor freed its lock and ended; one that only waits to be reaped by its parent has ended."""
    deadline = time.monotonic() + seconds
    while lock_holder(instance) == pid or _is_alive(pid):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
