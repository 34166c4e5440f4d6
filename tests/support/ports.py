"""Ports for servers that a test starts."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Final

# Below the range from which the system takes ports for outgoing connections.
_FIRST: Final = 12_000
_LAST: Final = 19_900


def free_ports(count: int) -> list[int]:
    """So many free ports of 127.0.0.1."""
    found: list[int] = []
    start = _FIRST + (os.getpid() * 37) % (_LAST - _FIRST)
    for port in (*range(start, _LAST), *range(_FIRST, start)):
        if port not in _given and _is_free(port):
            found.append(port)
            _given.add(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def wait_for_port(port: int, *, seconds: float, check: Callable[[], None] = lambda: None) -> None:
    """Wait until something listens on a port of 127.0.0.1; `check` raises where it never will."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            check()
            assert time.monotonic() < deadline, f"nothing listens on {port} after {seconds} s"
            time.sleep(0.02)


def is_unused(port: int) -> bool:
    """Whether nothing listens on a port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        return probe.connect_ex(("127.0.0.1", port)) != 0


_given: set[int] = set()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
