"""A service that says words back, clients of it over real sockets, and a peer that misbehaves as it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import aiohttp
import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import PayflowError, Rejection
from payflow.platform.context import current_deadline, current_traceparent
from payflow.platform.http.asgi import ASGIApp
from payflow.platform.process import make_app
from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.identity import Signer, ensure_keys
from payflow.platform.service import Runtime, Service
from tests.support.serving import serving


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    word: str


class Said(msgspec.Struct, frozen=True, kw_only=True):
    word: str


class Echo(Protocol):
    """A service for these tests. It is called `risk`, so that the settings know where it is."""

    service: ClassVar[str] = "risk"

    @operation(callers={"confirm"}, timeout_s=2)
    async def say(self, asks: list[Ask]) -> Answers[Said]: ...

    @operation(callers={"confirm"}, timeout_s=2, repeatable=False)
    async def say_once(self, asks: list[Ask]) -> Answers[Said]: ...

    @operation(callers={"gateway"})
    async def whisper(self, asks: list[Ask]) -> Answers[Said]: ...


class EchoService:
    """Says words back, and remembers how it was asked."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.traces: list[str] = []
        self.seconds_left: list[float] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def say(self, asks: list[Ask]) -> Answers[Said]:
        self.batches.append([ask.word for ask in asks])
        self.traces.append(current_traceparent.get())
        deadline = current_deadline.get()
        assert deadline is not None
        self.seconds_left.append(deadline - asyncio.get_running_loop().time())
        await self.gate.wait()
        return [self._answer(ask) for ask in asks]

    say_once = say
    whisper = say

    @staticmethod
    def _answer(ask: Ask) -> Said | PayflowError:
        if ask.word == "refuse":
            return Rejection("not this one", word=ask.word)
        if ask.word == "fail":
            raise ZeroDivisionError
        return Said(word=ask.word)


def make_keys(directory: Path) -> Path:
    """Keys of the services of these tests; returns the directory."""
    ensure_keys(directory, ["confirm", "gateway", "risk", "ofac"])
    return directory


def app_of(echo: EchoService, keys_dir: Path, **settings: str) -> ASGIApp:
    environ = {"PAYFLOW_SERVICE_KEYS_DIR": str(keys_dir), **settings}
    runtime = Runtime(service="risk", instance="risk", environ=environ)
    return make_app(runtime=runtime, service=Service(implementations=[(Echo, echo)]))


@asynccontextmanager
async def client_of(url: str, keys_dir: Path, *, caller: str = "confirm") -> AsyncIterator[Echo]:
    clients = RpcClients(signer=Signer.load(service=caller, directory=keys_dir), queue_max=1000)
    try:
        yield clients.connect(Echo, url)
    finally:
        await clients.close()


Reply = Callable[[int, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class RawPeer:
    """A listener that does with the n-th request what it is told, and keeps what it was sent."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self.requests: list[bytes] = []
        self.url = ""
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> RawPeer:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        self.requests.append(await reader.readexactly(length))
        assert self._server is not None
        number = len(self.requests)
        reply = self._replies.pop(0)
        if reply is die_for_good:
            self._server.close()
        await reply(number, reader, writer)


async def die(_: int, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Cut the connection in mid-call, as the end of a process does."""
    writer.transport.abort()


async def die_for_good(_: int, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Cut the connection, and refuse every later one."""
    writer.transport.abort()


async def stay_silent(_: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


def reply_with(status: int, body: bytes, *, content_type: str = "application/msgpack") -> Reply:
    async def reply(_: int, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 {status} X\r\nContent-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"Connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    return reply


def said(*words: str) -> Reply:
    return reply_with(200, msgspec.msgpack.encode([[0, {"word": word}] for word in words]))


@asynccontextmanager
async def client_of_stopping(
    echo: EchoService, keys_dir: Path
) -> AsyncIterator[tuple[Echo, Callable[[], Awaitable[object]]]]:
    """A client, and a function that stops its server with a drain of a second."""
    server = serving(app_of(echo, keys_dir))
    url = await server.__aenter__()
    is_stopped = False

    async def stop() -> None:
        nonlocal is_stopped
        is_stopped = True
        await server.__aexit__(None, None, None)

    async with client_of(url, keys_dir) as client:
        yield client, stop
    if not is_stopped:
        await stop()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not is_so():  # noqa: ASYNC110 - the condition is a fact about a server, not an event
            await asyncio.sleep(0.005)


async def post(url: str, authorization: str | None, body: bytes = b"\x90") -> tuple[int, dict[str, Any]]:
    headers = {} if authorization is None else {"authorization": authorization}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/rpc/risk/say", data=body, headers=headers) as response,
    ):
        text = await response.read()
        return response.status, msgspec.json.decode(text) if response.status >= 400 else {}
