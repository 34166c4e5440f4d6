"""What other processes ask of a running supervisor: lines of JSON on a named pipe, without a thread or a port."""

from __future__ import annotations

import contextlib
import errno
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

# A write of at most so many bytes is never torn (POSIX's PIPE_BUF is at least 512).
REQUEST_MAX_BYTES: Final = 512
_READ_BYTES: Final = 65536


@dataclass(slots=True, kw_only=True)
class RestartProgress:
    """A rolling restart as the status file tells it. `state`: running, done or failed."""

    id: str
    names: list[str]
    done: list[str] = field(default_factory=list)
    state: str = "running"
    error: str = ""


class Requests:
    """The supervisor's end of the pipe."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = -1
        self._rest = b""

    def open(self) -> None:
        """Make the pipe, for this user alone."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        os.mkfifo(self._path, 0o600)
        # Also for writing: else the end of each writer is the end of the pipe.
        self._fd = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def fileno(self) -> int:
        """What to wait for."""
        return self._fd

    def take(self) -> list[dict[str, Any]]:
        """The requests that have come; what is none is left out."""
        with contextlib.suppress(BlockingIOError):
            self._rest += os.read(self._fd, _READ_BYTES)
        *lines, self._rest = self._rest.split(b"\n")
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                request = json.loads(line)
                if isinstance(request, dict):
                    found.append(request)
        return found

    def forget(self) -> None:
        """In a forked child: the pipe is the supervisor's."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def close(self) -> None:
        """Take no more requests."""
        self.forget()
        self._path.unlink(missing_ok=True)


def send_request(path: Path, request: dict[str, Any]) -> bool:
    """Ask the supervisor for something; False when none listens. Raises OSError for other reasons."""
    line = json.dumps(request).encode() + b"\n"
    if len(line) > REQUEST_MAX_BYTES:
        raise ValueError("the request is too long")
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENXIO):
            return False
        raise
    try:
        os.write(descriptor, line)
    finally:
        os.close(descriptor)
    return True
