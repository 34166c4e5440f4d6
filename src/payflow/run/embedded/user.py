"""Whom the embedded servers run as: ourselves, or an unprivileged user that already exists where we are root."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from payflow.run.errors import StartError

_CANDIDATES: Final = ("postgres", "nobody")


@dataclass(frozen=True, slots=True)
class ServerUser:
    """An account of this machine that has no rights of root."""

    name: str
    uid: int
    gid: int

    def become(self) -> None:
        """Give up root for good in this process; to be called in a forked child only."""
        os.setgroups([])
        os.setgid(self.gid)
        os.setuid(self.uid)

    def can_reach(self, path: Path) -> bool:
        """Whether this user may pass through every folder up to `path` and enter or run it; asked of the kernel."""
        needed = os.X_OK if path.is_dir() else os.X_OK | os.R_OK
        pid = os.fork()
        if pid == 0:
            try:
                self.become()
                os._exit(0 if os.access(path, needed) else 1)
            except OSError:
                os._exit(1)
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status) == 0


def server_user(*, owned: Path | None = None) -> ServerUser | None:
    """The user for the servers, or None where we are not root and they run as we do.

    `owned` is data of an earlier start: its owner stays the user, also when another candidate appears later.
    """
    if os.geteuid() != 0:
        return None
    if owned is not None and owned.exists() and owned.stat().st_uid != 0:
        entry = _entry_of(owned.stat().st_uid)
        if entry is not None:
            return ServerUser(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return ServerUser(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise StartError(
        "PostgreSQL refuses to run as root and this machine has neither a user `postgres` nor `nobody`: "
        "start Payflow as a normal user, or set PAYFLOW_POSTGRES_URL."
    )


def _entry_of(uid: int) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(uid)
    except KeyError:
        return None
