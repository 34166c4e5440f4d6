"""A TCP proxy before each service that understands just enough HTTP to act on one call of one operation.

Faults live here and in signals only: the product has no hook for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from typing import Final

HEAD_MAX: Final = 64 * 1024


class Position(StrEnum):
    """Where on a call's way a fault strikes."""

    BEFORE_DELIVERY = "before_delivery"
    AFTER_DELIVERY = "after_delivery"
    AFTER_ANSWER = "after_answer"
    HALF_AN_ANSWER = "half_an_answer"
    LATE_DELIVERY = "late_delivery"


class Deed:
    """One fault waiting for its call: `operation` of the service behind a proxy, `strike(caller's port)` what to do."""

    def __init__(
        self, *, service: str, operation: str, position: Position, strike: Callable[[int], None], delay_s: float = 0.0
    ) -> None:
        self.service = service
        self.operation = operation
        self.position = position
        self.delay_s = delay_s
        self.struck = asyncio.Event()
        self._strike = strike

    def do(self, caller_port: int) -> None:
        """The call is where the fault belongs; it came from this port."""
        self._strike(caller_port)
        self.struck.set()


class Director:
    """Holds the one deed that is armed; the first call that fits takes it."""

    def __init__(self) -> None:
        self._armed: Deed | None = None

    def arm(self, deed: Deed) -> None:
        """Wait for this deed's call from now on."""
        self._armed = deed

    def disarm(self) -> None:
        """Wait for none."""
        self._armed = None

    def take(self, service: str, operation: str) -> Deed | None:
        """The armed deed if it is for this call; it is armed no longer."""
        deed = self._armed
        if deed is None or (deed.service, deed.operation) != (service, operation):
            return None
        self._armed = None
        return deed


class Proxy:
    """Stands before one service. Everything passes, but for the call that a deed waits for."""

    def __init__(self, *, service: str, port: int, director: Director) -> None:
        self._service = service
        self._port = port
        self._director = director
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        """Listen on a free port of 127.0.0.1 and return it."""
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, limit=HEAD_MAX)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        """End every connection."""
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of our own: one that asyncio starts by itself complains when it is cancelled.
        task = asyncio.create_task(self._accepted(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
                await self._serve(reader, writer)
        finally:
            _reset(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller_port: int = writer.get_extra_info("peername")[1]
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port, limit=HEAD_MAX)
        try:
            while True:
                head, body = await _read_message(reader)
                deed = self._director.take(self._service, _operation_of(head))
                if deed is not None and deed.position is Position.BEFORE_DELIVERY:
                    deed.do(caller_port)
                    return
                if deed is not None and deed.position is Position.LATE_DELIVERY:
                    deed.do(caller_port)
                    await asyncio.sleep(deed.delay_s)
                upstream.write(head + body)
                answer = b"".join(await _read_message(upstream_reader))
                if deed is not None and deed.position is Position.AFTER_DELIVERY:
                    deed.do(caller_port)
                    return
                if deed is not None and deed.position is Position.HALF_AN_ANSWER:
                    writer.write(answer[: len(answer) // 2])
                    await writer.drain()
                    deed.do(caller_port)
                    return
                writer.write(answer)
                await writer.drain()
                if deed is not None and deed.position is Position.AFTER_ANSWER:
                    deed.do(caller_port)
        finally:
            _reset(upstream)


async def _read_message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """A request or an answer: head and body. Raises ValueError for one without a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
        elif name.strip().lower() == b"transfer-encoding":
            raise ValueError("a message without a length")
    return head, await reader.readexactly(length)


def _operation_of(head: bytes) -> str:
    """`transfer` of `POST /rpc/account/transfer HTTP/1.1`."""
    path = head.split(b" ", 2)[1].decode("ascii", "replace")
    return path.rpartition("/")[2]


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError, RuntimeError):
        writer.transport.abort()
