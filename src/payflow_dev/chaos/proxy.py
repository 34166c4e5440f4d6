"""A TCP proxy before each service that understands just enough HTTP to act on one call of one operation.

Faults live here and in signals only: the product has no hook for them.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import Any, Final

HEAD_MAX: Final = 64 * 1024


class Position(StrEnum):
    """Where on a call's way a fault strikes."""

    BEFORE_DELIVERY = "before_delivery"
    AFTER_DELIVERY = "after_delivery"
    AFTER_ANSWER = "after_answer"
    HALF_A_REQUEST = "half_a_request"
    HALF_AN_ANSWER = "half_an_answer"
    LATE_DELIVERY = "late_delivery"


# Where the call's answer must come first: some never do (a bank that is silent), so that several calls may try.
NEEDS_ANSWER: Final = frozenset({Position.AFTER_DELIVERY, Position.AFTER_ANSWER, Position.HALF_AN_ANSWER})


class Deed:
    """One fault waiting for its call: `operation` of the service behind a proxy, `strike` what to do.

    `caller`: only a call of this process will do. `resets`: both ends are cut by a reset instead of an orderly end.
    """

    def __init__(
        self,
        *,
        service: str,
        operation: str,
        position: Position,
        strike: Callable[[], None],
        caller: str | None = None,
        resets: bool = False,
        delay_s: float = 0.0,
    ) -> None:
        self.service = service
        self.operation = operation
        self.position = position
        self.caller = caller
        self.resets = resets
        self.delay_s = delay_s
        self.struck = asyncio.Event()
        self._strike = strike

    def do(self) -> None:
        """The call is where the fault belongs."""
        self._strike()
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

    def take(
        self,
        service: str,
        operation: str,
        caller: Callable[[], str | None] = lambda: None,
        *,
        shared: frozenset[Position] = frozenset(),
    ) -> Deed | None:
        """The armed deed if it is for this call. `caller` is asked only where it counts.

        It is armed no longer, but at the `shared` positions: there every call takes it until one has struck.
        """
        deed = self._armed
        if deed is None or deed.struck.is_set() or (deed.service, deed.operation) != (service, operation):
            return None
        if deed.caller is not None and deed.caller != caller():
            return None
        if deed.position not in shared:
            self._armed = None
        return deed

    @property
    def armed(self) -> Deed | None:
        """The deed that waits for its call."""
        return self._armed


class Proxy:
    """Stands before one service. Everything passes, but for the call that a deed waits for."""

    def __init__(
        self,
        *,
        service: str,
        port: int,
        director: Director,
        caller_of: Callable[[int, int], str | None] = lambda _port, _to: None,
    ) -> None:
        self._service = service
        self._port = port
        self._director = director
        # Which process has the connection from this port: asked once a connection, since it is slow to find out.
        self._caller_of = caller_of
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.own_port = 0

    async def start(self) -> int:
        """Listen on a free port of 127.0.0.1 and return it."""
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, limit=HEAD_MAX)
        self.own_port = int(self._server.sockets[0].getsockname()[1])
        return self.own_port

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
            cut(writer)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        caller = _Caller(partial(self._caller_of, writer.get_extra_info("peername")[1], self.own_port))
        upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._port, limit=HEAD_MAX)
        try:
            while True:
                head, body = await _next_request(reader, upstream_reader)
                deed = self._director.take(self._service, _operation_of(head), caller.name, shared=NEEDS_ANSWER)
                if deed is None:
                    upstream.write(head + body)
                    writer.write(b"".join(await _read_message(upstream_reader)))
                    await writer.drain()
                elif not await _misbehave(deed, head + body, writer, upstream_reader, upstream):
                    return
        finally:
            cut(upstream)


async def _next_request(reader: asyncio.StreamReader, upstream: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """The caller's next request. Raises ConnectionResetError when the service ends the connection first.

    The caller must hear of that at once, as without a proxy, and not by losing its next request.
    """
    request = asyncio.ensure_future(_read_message(reader))
    # A service says nothing unasked: what comes here is the end.
    ended = asyncio.ensure_future(upstream.read(1))
    try:
        await asyncio.wait({request, ended}, return_when=asyncio.FIRST_COMPLETED)
        if not request.done():
            raise ConnectionResetError
        return request.result()
    finally:
        request.cancel()
        ended.cancel()
        await asyncio.gather(request, ended, return_exceptions=True)


class _Caller:
    """Whose connection it is, found out when somebody asks for the first time."""

    def __init__(self, find: Callable[[], str | None]) -> None:
        self._find = find
        self._name: str | None = None

    def name(self) -> str | None:
        if self._name is None:
            self._name = self._find()
        return self._name


async def _misbehave(
    deed: Deed,
    request: bytes,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream: asyncio.StreamWriter,
) -> bool:
    """Carry the call to where the deed strikes; whether the connection goes on."""
    position = deed.position
    ends = (writer, upstream)
    if position is Position.BEFORE_DELIVERY:
        return _end(deed, ends)
    if position is Position.HALF_A_REQUEST:
        upstream.write(request[: len(request) // 2])
        await upstream.drain()
        return _end(deed, ends)
    if position is Position.LATE_DELIVERY:
        deed.do()
        await asyncio.sleep(deed.delay_s)
    upstream.write(request)
    answer = b"".join(await _read_message(upstream_reader))
    if deed.struck.is_set() and position in NEEDS_ANSWER:
        writer.write(answer)
        await writer.drain()
        return True
    if position is Position.AFTER_DELIVERY:
        return _end(deed, ends)
    if position is Position.HALF_AN_ANSWER:
        writer.write(answer[: len(answer) // 2])
        await writer.drain()
        return _end(deed, ends)
    writer.write(answer)
    await writer.drain()
    if position is Position.AFTER_ANSWER:
        deed.do()
        return not deed.resets or _cut_all(ends, resets=True)
    return True


def _end(deed: Deed, ends: tuple[asyncio.StreamWriter, ...]) -> bool:
    deed.do()
    return _cut_all(ends, resets=deed.resets)


def _cut_all(ends: tuple[asyncio.StreamWriter, ...], *, resets: bool) -> bool:
    for end in ends:
        cut(end, resets=resets)
    return False


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


def cut(writer: asyncio.StreamWriter, *, resets: bool = False) -> None:
    """End a connection at once: by an end of stream, or by a reset."""
    with suppress(OSError, RuntimeError):
        raw: Any = writer.get_extra_info("socket")
        if resets and raw is not None:
            # No lingering: what is not sent is thrown away, and the other end gets RST instead of FIN.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
