"""`up -d`: a supervisor that goes on in the background once everything is ready."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import NoReturn

from payflow.run.errors import StartError, explain_os_error
from payflow.run.supervisor.console import fail

_READY = b"ready"


def run_in_background(run: Callable[[Callable[[], None]], None], *, log: Path) -> int:
    """Call `run(on_ready)` in a session of its own; returns 0 when it is ready, else the exit code of its failure.

    Until then it prints here; from then on its output goes to `log`. Ctrl-C before that stops it again.
    """
    reader, writer = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _become_daemon(run, writer=writer, log=log)
    os.close(writer)

    def pass_on(number: int, _frame: FrameType | None) -> None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    # Not up to the end of the pipe: the daemon's own children hold it open as well.
    if os.read(reader, len(_READY)) == _READY:
        return 0
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) or 1


def _become_daemon(run: Callable[[Callable[[], None]], None], *, writer: int, log: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()

        def on_ready() -> None:
            _leave_terminal(log)
            os.write(writer, _READY)
            os.close(writer)

        run(on_ready)
        code = 0
    except StartError as error:
        fail(error.message)
        code = error.exit_code
    except OSError as error:
        explained = explain_os_error(error)
        fail(explained.message if explained else f"Payflow stopped: {error}")
        if explained is None:
            traceback.print_exc()
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _leave_terminal(log: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.close(output)
    os.close(nothing)
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(line_buffering=True)
