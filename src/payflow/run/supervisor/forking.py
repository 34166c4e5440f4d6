"""Making a child process of the supervisor: a clean copy that dies with its parent and writes to a log of its own."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from payflow.run.errors import StartError, explain_os_error

LOG_MAX_BYTES: Final = 50 * 1024 * 1024
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NAME: Final = 15
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGQUIT)
# Loaded before any fork: a child must not search for libraries after it has become another user.
_LIBC: Final[Any] = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def require_single_thread(what: str) -> None:
    """Raise StartError when this process has more than one thread: forking it could copy a lock that is held."""
    names = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
    count = _kernel_threads()
    if names or count > 1:
        raise StartError(
            f"{what} started a thread ({', '.join(names) or f'{count - 1} native'}); it must wait for the fork."
        )


def rotate_log(path: Path) -> None:
    """Put a log of more than 50 MB aside as `.1`, which replaces the one before."""
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > LOG_MAX_BYTES:
            path.replace(path.with_name(f"{path.name}.1"))


def spawn(run: Callable[[], object], *, log: Path, death_signal: signal.Signals, in_child: Callable[[], None]) -> int:
    """Fork a child that calls `run` and then ends; returns its pid.

    The child has a process group of its own (Ctrl-C reaches the supervisor only), default signals, its output in
    `log`, and gets `death_signal` when the supervisor dies, however that happens. `in_child` closes what is not
    the child's own.
    """
    rotate_log(log)
    sys.stdout.flush()
    sys.stderr.flush()
    lifeline = _Lifeline()
    parent = os.getpid()
    # Blocked until the child has handlers of its own: a signal in between would be noted in the wrong process.
    signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED)
    try:
        pid = os.fork()
    except BaseException:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        raise
    if pid == 0:
        _become_child(run, log=log, death_signal=death_signal, in_child=in_child, parent=parent, lifeline=lifeline)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
    lifeline.keep_in_parent(pid)
    with contextlib.suppress(OSError):  # the child does it too; whoever is first
        os.setpgid(pid, pid)
    return pid


def die_with_parent(death_signal: signal.Signals, *, parent: int) -> None:
    """Ask the kernel for `death_signal` at the parent's death. A change of user clears it: then call this again."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def name_process(name: str) -> None:
    """What `top` and `ps -o comm` show: without it every fork looks like its parent."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_NAME, f"pf-{name}"[:15].encode(), 0, 0, 0)


class _Lifeline:
    """Where the kernel has no parent-death signal: a pipe whose other end closes when the supervisor dies."""

    _writers: dict[int, int] = {}  # noqa: RUF012 - shared on purpose: one supervisor per process

    def __init__(self) -> None:
        self._ends = None if _LIBC is not None else os.pipe()

    def keep_in_parent(self, pid: int) -> None:
        if self._ends is not None:
            os.close(self._ends[0])
            self._writers[pid] = self._ends[1]

    def watch_in_child(self) -> None:
        if self._ends is None:
            return
        reader, writer = self._ends
        for inherited in (writer, *self._writers.values()):
            os.close(inherited)

        def end_with_parent() -> None:
            os.read(reader, 1)
            os._exit(1)

        threading.Thread(target=end_with_parent, name="lifeline", daemon=True).start()


def _become_child(
    run: Callable[[], object],
    *,
    log: Path,
    death_signal: signal.Signals,
    in_child: Callable[[], None],
    parent: int,
    lifeline: _Lifeline,
) -> NoReturn:
    code = 1
    try:
        signal.set_wakeup_fd(-1)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED)
        os.setpgid(0, 0)
        _redirect_output(log)
        die_with_parent(death_signal, parent=parent)
        name_process(log.stem)
        in_child()
        lifeline.watch_in_child()
        # Requests make many short-lived objects and few cycles: looking for those every 700 objects costs percents. The
        # requests of a full gateway come and go in waves of some fifty thousand objects, which is no reason to look.
        gc.set_threshold(100_000, 20, 100)
        gc.enable()
        run()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except StartError as error:
        print(error.message, file=sys.stderr)
    except OSError as error:
        explained = explain_os_error(error)
        print(explained.message if explained else traceback.format_exc(), file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        # Not sys.exit: the supervisor's own clean-up must not run in its child.
        os._exit(code)


def _redirect_output(log: Path) -> None:
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True, errors="replace")


def _kernel_threads() -> int:
    try:
        return len(os.listdir("/proc/self/task"))
    except OSError:
        return 1
