"""The loader that sends by the clock, against a real server that answers as told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from payflow_dev.bench.job import Job, Load
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


def offer(*answers: bytes, connections: int = 8, normal_ms: float = 5_000.0) -> Load:
    with answering(*answers) as port:
        job = Job(
            host="127.0.0.1",
            port=port,
            connections=connections,
            seconds=0.5,
            run_id="abc123",
            first=100,
            heads=[b"POST / HTTP/1.1\r\nKey: "],
            templates=[Template(0, b"\r\nBody: ", b"\n\n")],
            offered_per_s=100.0,
            normal_ms=normal_ms,
        )
        return OpenLoader(job).run()


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
