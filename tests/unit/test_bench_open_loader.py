"""The loader that sends by the clock, against a real server that answers as told."""

from __future__ import annotations

import asyncio
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from payflow.run.errors import StartError
from payflow_dev.bench.drive import drive
from payflow_dev.bench.job import Job, Load, write_file
from payflow_dev.bench.loader import CannotBegin
from payflow_dev.bench.open_loader import OpenLoader
from payflow_dev.bench.wire import Outcome, Template

PAID = b'HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{"status":"SUCCESS"}'
REFUSED = b'HTTP/1.1 503 Service Unavailable\r\nContent-Length: 22\r\n\r\n{"error":"OVERLOADED"}'


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server that gives these answers in turns; yields its port."""
    ready, port = threading.Event(), 0
    loop = asyncio.new_event_loop()
    requests = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        while await reader.readuntil(b"\n\n"):
            writer.write(answers[requests % len(answers)])
            requests += 1

    async def start() -> None:
        nonlocal port
        server = await asyncio.start_server(lambda reader, writer: _quietly(serve(reader, writer)), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield port
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        for task in asyncio.all_tasks(loop):
            task.cancel()
            loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
        loop.close()


async def _quietly(serving: object) -> None:
    try:
        await serving
    except (asyncio.IncompleteReadError, ConnectionError):
        return


def a_job(port: int, *, connections: int = 8) -> Job:
    return Job(
        host="127.0.0.1",
        port=port,
        connections=connections,
        seconds=0.5,
        run_id="abc123",
        first=100,
        heads=[b"POST / HTTP/1.1\r\nKey: "],
        templates=[Template(0, b"\r\nBody: ", b"\n\n")],
        offered_per_s=100.0,
        normal_ms=5_000.0,
    )


def offer(*answers: bytes) -> Load:
    with answering(*answers) as port:
        return OpenLoader(a_job(port)).run()


def test_payments_go_out_by_the_clock_and_single_ones_follow() -> None:
    load = offer(PAID)

    assert load.sent + load.unsent >= 49
    assert load.recovered_after_s is not None
    assert len(load.outcomes) == load.sent + 5
    assert set(load.outcomes) == {Outcome.SUCCESS}
    assert (load.refused, load.errors) == (0, {})


def test_a_refusal_holds_nobody_back_and_its_time_is_told() -> None:
    load = offer(PAID, PAID, PAID, PAID, PAID, PAID, REFUSED)

    assert load.sent + load.unsent >= 49
    assert load.refused == load.errors["503 OVERLOADED"] > 0
    assert load.refused_latencies.max_ms > 0
    assert load.outcomes.count(Outcome.UNKNOWN) == load.refused
    assert load.recovered_after_s is not None


def test_a_step_whose_connections_cannot_be_made_says_so_and_does_not_begin() -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        job = a_job(nobody.getsockname()[1])

        with pytest.raises(StartError, match=r"0 of 8 connections could be made.*refused.*ulimit -n.*somaxconn"):
            drive(job=job, loader="open", tick=lambda _note: None)


def test_connections_that_nobody_takes_are_no_step_either() -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen(2)

        with pytest.raises(CannotBegin, match=r"^[1-7] of 8 connections could be made: timed out"):
            OpenLoader(a_job(busy.getsockname()[1])).run()


def test_more_connections_than_the_process_may_have_files_are_told_with_how_many_there_were(tmp_path: Path) -> None:
    with answering(PAID) as port:
        write_file(tmp_path / "job", a_job(port, connections=200))
        command = f"ulimit -n 60 && exec {sys.executable} -m payflow_dev.bench.open_loader job result"
        done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)

    told = re.fullmatch(r"([0-9]+) of 200 connections could be made: Too many open files\. .*\n", done.stderr)
    assert told is not None, done.stderr
    assert 0 < int(told[1]) < 60
    assert "ulimit -n: 60 here, at least 264 wanted" in done.stderr
    assert (done.returncode, (tmp_path / "result").exists()) == (1, False)
