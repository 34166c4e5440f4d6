"""Replacing one process by another without a gap: the new one takes requests before the old one stops taking them.

Both hold the same listening sockets, so that no connection is refused meanwhile. A new process that does not become
ready changes nothing: the old one goes on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
from dataclasses import dataclass
from typing import Final

from payflow.run.errors import last_line
from payflow.run.supervisor.children import Child, reap

READY_WITHIN_S: Final = 60.0
# More than PAYFLOW_DRAIN_S by default; then it is hurried, then killed.
HURRY_AFTER_S: Final = 18.0
KILL_AFTER_S: Final = 20.0


class ReadyPipe:
    """On which a process tells once that it takes requests; its end without a word tells as well."""

    def __init__(self) -> None:
        self.reader, self._writer = os.pipe()
        os.set_blocking(self.reader, False)

    def close_in_parent(self) -> None:
        """After the fork: else the end of the pipe is never seen."""
        os.close(self._writer)

    def close_in_child(self) -> None:
        os.close(self.reader)

    def say_ready(self) -> None:
        """In the child, when requests are taken."""
        os.write(self._writer, b"r")
        os.close(self._writer)

    def is_ready(self) -> bool | None:
        """True when it has said so, False when it has ended without, None while it has said nothing."""
        if not select.select([self.reader], [], [], 0)[0]:
            return None
        return os.read(self.reader, 1) == b"r"

    def close(self) -> None:
        if self.reader >= 0:
            os.close(self.reader)
            self.reader = -1


@dataclass(slots=True, kw_only=True)
class Handover:
    """From the fork of a successor to the end of its predecessor. `advance` is called until it says that it is over."""

    child: Child
    successor: int
    ready: ReadyPipe
    began_at: float
    old: int | None = None
    told_at: float = 0.0
    is_hurried: bool = False
    error: str = ""

    @property
    def has_taken_over(self) -> bool:
        """Whether the successor is the child now."""
        return self.child.pid == self.successor

    def advance(self, *, now: float) -> bool:
        """Go on as far as possible; True when it is over, `error` then says whether it failed."""
        if not self.has_taken_over:
            return self._await_successor(now)
        if self.old is None or reap(self.old) is not None:
            return True
        self._press(self.old, now)
        return False

    def abort(self) -> None:
        """Everything is stopped: the successor that has not begun is ended, the predecessor is hurried."""
        self.ready.close()
        if not self.has_taken_over:
            _send(self.successor, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.successor, 0)
        elif self.old is not None:
            _send(self.old, signal.SIGKILL if self.is_hurried else signal.SIGTERM)

    def _await_successor(self, now: float) -> bool:
        is_ready = self.ready.is_ready()
        if is_ready is None and now - self.began_at < READY_WITHIN_S:
            return False
        self.ready.close()
        if is_ready:
            self.old = self.child.pid
            self.child.began(pid=self.successor, now=now)
            self.child.healthy_at = now
            self.told_at = now
            if self.old is not None:
                _send(self.old, signal.SIGTERM)
            return False
        _send(self.successor, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.successor, 0)
        self.error = f"{self.child.name} did not become ready: {last_line(self.child.log)}"
        return True

    def _press(self, old: int, now: float) -> None:
        if now - self.told_at >= KILL_AFTER_S:
            _send(old, signal.SIGKILL)
        elif now - self.told_at >= HURRY_AFTER_S and not self.is_hurried:
            self.is_hurried = True
            _send(old, signal.SIGTERM)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
