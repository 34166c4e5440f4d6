"""The memory of processes, read without asking them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from payflow.run.inspection import heap_kb_by_process, pss_kb_by_process
from payflow.run.supervisor.status import InstanceStatus, ProcessStatus

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Other systems have no smaps_rollup.")
MIB = 2**20


# It writes, forks a child that shares all of it, and both wait.
_WRITER = """
import os, signal, sys
written = b"x" * int(sys.argv[1])
child = os.fork()
if child:
    print(child, flush=True)
signal.pause()
"""


@contextmanager
def a_writer(size: int) -> Iterator[tuple[int, int]]:
    """A process that has written so much, and a fork of it: their pids."""
    command = [sys.executable, "-c", _WRITER, str(size)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as parent:
        try:
            assert parent.stdout is not None
            yield parent.pid, int(parent.stdout.readline())
        finally:
            os.killpg(parent.pid, signal.SIGKILL)


def status(*, supervisor: int, kyc: int | None, kind: str = "service") -> InstanceStatus:
    process = ProcessStatus(name="kyc", service="kyc", kind=kind, pid=kyc, url="", state="healthy", restarts=0)
    return InstanceStatus(
        pid=supervisor,
        state="ready",
        started_at="",
        data_dir=str(Path.cwd()),
        host="127.0.0.1",
        port=1,
        port_base=1,
        public_url="",
        processes=(process,),
    )


def test_what_a_process_has_written_is_told_whether_or_not_another_one_shares_it() -> None:
    with a_writer(64 * MIB) as (parent, child):
        found = status(supervisor=parent, kyc=child)
        heap_kb, pss_kb = heap_kb_by_process(found), pss_kb_by_process(found)

    assert heap_kb["supervisor"] == pytest.approx(64 * 1024, rel=0.3)
    assert heap_kb["kyc"] == pytest.approx(heap_kb["supervisor"], rel=0.1)
    # Of what both have, each is told half.
    assert pss_kb["kyc"] < heap_kb["kyc"] * 0.75


def test_a_process_that_is_not_there_is_left_out() -> None:
    assert set(heap_kb_by_process(status(supervisor=os.getpid(), kyc=None))) == {"supervisor"}


# It starts a child that does hardly anything, and another one that works for a while and writes so much.
_SERVER = """
writes='text=$(head -c "$0" /dev/zero | tr "\\0" x); echo $$; sleep 60; :'
bash -c "$writes" 1024 &
bash -c 'end=$((SECONDS + 2)); while [ $SECONDS -lt $end ]; do :; done; '"$writes" "$1" &
wait
"""


def test_each_child_of_a_server_is_told_by_itself_once_it_has_worked() -> None:
    command = ["bash", "-c", _SERVER, "server", str(8 * MIB)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as server:
        try:
            assert server.stdout is not None
            idle, busy = (int(server.stdout.readline()) for _ in range(2))
            found = status(supervisor=os.getpid(), kyc=server.pid, kind="server")
            heap_kb, pss_kb = heap_kb_by_process(found), pss_kb_by_process(found)
        finally:
            os.killpg(server.pid, signal.SIGKILL)

    assert {name for name in heap_kb if name.startswith("kyc")} == {"kyc", f"kyc/{busy}"}
    assert idle != busy
    assert heap_kb[f"kyc/{busy}"] > 8 * 1024
    assert pss_kb["kyc"] > 8 * 1024
