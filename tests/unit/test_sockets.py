"""A port that is taken: by whom, and what to do about it."""

from __future__ import annotations

import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from payflow.run.errors import StartError
from payflow.run.supervisor.sockets import listen

# PR_SET_NAME is 15: the name under which a process is listed.
_LISTENS = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode(), 0, 0, 0)
with socket.create_server(("127.0.0.1", 0)) as listener:
    print(listener.getsockname()[1], flush=True)
    sys.stdin.read()
"""
HeldBy = Callable[[str], int]


@pytest.fixture
def held_by() -> Iterator[HeldBy]:
    """A port on which a program of this name listens."""
    with ExitStack() as stack:

        def hold(name: str) -> int:
            command = [sys.executable, "-c", _LISTENS, name]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert process.stdout is not None
            return int(process.stdout.readline())

        yield hold


def test_a_port_of_another_payflow_is_told_as_that(held_by: HeldBy) -> None:
    port = held_by("pf-gateway-1")

    with pytest.raises(StartError) as refused:
        listen(host="127.0.0.1", port=port, option="--port")

    said = refused.value.message
    assert said.startswith(f"Port {port} is taken by pf-gateway-1 (pid ")
    assert "of another Payflow" in said
    assert all(option in said for option in ("--data-dir", "--port-base", "--port of its own"))
    assert "that program" not in said


def test_a_port_of_another_program_is_not(held_by: HeldBy) -> None:
    port = held_by("nginx")

    with pytest.raises(StartError, match=r"taken by nginx \(pid \d+\): stop that program, .* with --port\.$"):
        listen(host="127.0.0.1", port=port, option="--port")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how long the queue of a socket is")
def test_as_many_clients_may_come_at_once_as_the_system_allows() -> None:
    with listen(host="127.0.0.1", port=0, option="--port") as listener:
        told = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 32)

    # Of a socket that listens, tcpi_sacked is how many connections it keeps for whoever accepts them.
    (waiting_max,) = struct.unpack_from("I", told, 28)
    assert waiting_max == min(4096, int(Path("/proc/sys/net/core/somaxconn").read_text()))
