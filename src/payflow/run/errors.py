"""What the command line tells its user when it cannot do what was asked."""

from __future__ import annotations

import errno
from pathlib import Path


class StartError(Exception):
    """One line for the person at the terminal: what is wrong and what to do. Printed in red; exit code `exit_code`."""

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


_NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
_NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


def explain_os_error(error: OSError) -> StartError | None:
    """The user's own errors (disk full, no permission, too many files) as a line; None for what would be our bug."""
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in _NO_SPACE:
        return StartError(f"The disk is full{where}: free some space, or choose another place with --data-dir.")
    if error.errno in _NOT_ALLOWED:
        return StartError(
            f"No permission{where}: run as the user who owns it, or choose another place with --data-dir."
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return StartError("Too many open files: raise the limit (ulimit -n 4096) and start again.")
    if error.errno == errno.EAGAIN:
        return StartError("The system refuses to make another process: raise the limit (ulimit -u) and start again.")
    return None


def last_line(path: Path, *, default: str = "its log is empty") -> str:
    """The last line of a log that says something, so that a failure can be told in one line."""
    try:
        lines = path.read_bytes()[-8192:].decode("utf-8", "replace").splitlines()
    except OSError:
        return default
    return next((line.strip() for line in reversed(lines) if line.strip()), default)
