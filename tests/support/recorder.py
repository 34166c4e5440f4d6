"""A stand-in for a gateway that remembers every byte of what reaches it, for tests of what is before it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.ports import free_ports
from tests.support.serving import free_socket

_ANSWER = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n{"real":true}'
_EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Seen:
    """One request as it arrived."""

    line: str
    fields: list[tuple[str, str]]
    body: bytes = b""

    @property
    def path(self) -> str:
        return self.line.split(" ")[1]

    def all_of(self, name: str) -> list[str]:
        """Every value of a header field."""
        return [value for other, value in self.fields if other == name.lower()]

    def one(self, name: str) -> str:
        """The value of a field that must be there exactly once."""
        (value,) = self.all_of(name)
        return value


@dataclass
class Recorder:
    """Answers 200, unless the path says otherwise: /payments/die, /payments/hang, /payments/half, .../events."""

    port: int
    seen: list[Seen] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def lines(self) -> list[str]:
        """The request lines, in order."""
        return [one.line for one in self.seen]

    async def serve_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Every request of one connection; ends it where there is one that it cannot read."""
        try:
            while await self._serve_request(reader, writer):
                pass
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve_request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *rest = head.removesuffix("\r\n\r\n").split("\r\n")
        pairs = [one.split(":", 1) for one in rest]
        request = Seen(line, [(name.lower(), value.strip()) for name, value in pairs])
        self.seen.append(request)
        request.body = await _read_body(reader, request)
        return await self._answer(request, writer)

    async def _answer(self, request: Seen, writer: asyncio.StreamWriter) -> bool:
        """Answer; whether the connection goes on."""
        if request.path == "/payments/die":
            return False
        if request.path == "/payments/hang":
            await asyncio.sleep(3)
            return False
        if request.path == "/payments/half":
            writer.write(_ANSWER.replace(b"13", b"99"))
            await writer.drain()
            return False
        if request.path.endswith("/events"):
            await _stream(writer)
            return False
        writer.write(_ANSWER)
        await writer.drain()
        return True


async def _read_body(reader: asyncio.StreamReader, request: Seen) -> bytes:
    if request.all_of("transfer-encoding"):
        body = b""
        while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
            body += (await reader.readexactly(size + 2))[:-2]
        await reader.readuntil(b"\r\n")
        return body
    return await reader.readexactly(int((request.all_of("content-length") or ["0"])[0]))


async def _stream(writer: asyncio.StreamWriter) -> None:
    """Three small events, half a second apart."""
    writer.write(_EVENTS)
    for number in range(3):
        event = b"id: %d\ndata: {}\n\n" % number
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        await asyncio.sleep(0.5)
    writer.write(b"0\r\n\r\n")
    await writer.drain()


@contextmanager
def recording() -> Iterator[Recorder]:
    """A recorder on a free port, in a thread of its own."""
    recorder = Recorder(free_ports(1)[0])
    bound = free_socket(recorder.port)
    ready, told = threading.Event(), threading.Event()

    async def main() -> None:
        server = await asyncio.start_server(recorder.serve_connection, sock=bound, limit=1024 * 1024)
        ready.set()
        await asyncio.to_thread(told.wait)
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    assert ready.wait(5)
    try:
        yield recorder
    finally:
        told.set()
        thread.join(10)
        assert not thread.is_alive()


class Gateways:
    """Two recorders behind one edge."""

    def __init__(self, first: Recorder, second: Recorder) -> None:
        self.first, self.second = first, second

    @property
    def addresses(self) -> list[str]:
        return [self.first.address, self.second.address]

    @property
    def seen(self) -> list[Seen]:
        """What reached either of them."""
        return [*self.first.seen, *self.second.seen]

    @property
    def the_one(self) -> Seen:
        """The only request that reached them."""
        (request,) = self.seen
        return request

    def forget(self) -> None:
        """Forget what reached them."""
        self.first.seen.clear()
        self.second.seen.clear()
