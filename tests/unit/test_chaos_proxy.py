"""The proxy of the fault runs: a fault strikes one call of its operation, where it was promised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

from payflow_dev.chaos.proxy import Deed, Director, Position, Proxy

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone"


class Service:
    """Answers every call but the first so many."""

    def __init__(self, *, silent: int = 0) -> None:
        self.silent = silent
        self.received: list[bytes] = []
        self.struck = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, OSError):
            while True:
                self.received.append(await reader.readuntil(b"\r\n\r\n"))
                if len(self.received) > self.silent:
                    writer.write(ANSWER)


class Way:
    def __init__(self, service: Service, director: Director, port: int) -> None:
        self.service, self.director, self.port = service, director, port

    def arm(self, position: Position, *, resets: bool = False) -> Deed:
        def strike() -> None:
            self.service.struck += 1

        deed = Deed(service="account", operation="transfer", position=position, strike=strike, resets=resets)
        self.director.arm(deed)
        return deed

    async def call(self, operation: str = "transfer", *, within_s: float = 5) -> bytes:
        """What the caller gets until the connection ends or its answer is there; empty where none came in time."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"POST /rpc/account/%s HTTP/1.1\r\nHost: a\r\n\r\n" % operation.encode())
        try:
            async with asyncio.timeout(within_s):
                return await reader.readexactly(len(ANSWER))
        except asyncio.IncompleteReadError as error:
            return error.partial
        except (TimeoutError, ConnectionResetError):
            return b""
        finally:
            writer.close()


@pytest.fixture
async def way(request: pytest.FixtureRequest) -> AsyncIterator[Way]:
    service, director = Service(silent=getattr(request, "param", 0)), Director()
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0)
    proxy = Proxy(service="account", port=server.sockets[0].getsockname()[1], director=director)
    try:
        yield Way(service, director, await proxy.start())
    finally:
        await proxy.close()
        server.close()


@pytest.mark.parametrize(
    ("position", "received", "answer"),
    [
        (Position.BEFORE_DELIVERY, 0, b""),
        (Position.AFTER_DELIVERY, 1, b""),
        (Position.HALF_AN_ANSWER, 1, ANSWER[: len(ANSWER) // 2]),
        (Position.AFTER_ANSWER, 1, ANSWER),
    ],
)
async def test_a_fault_strikes_at_its_place_and_only_once(
    way: Way, position: Position, received: int, answer: bytes
) -> None:
    deed = way.arm(position)

    first, second = await way.call(), await way.call()

    assert deed.struck.is_set()
    assert (first, len(way.service.received) - 1) == (answer, received)
    assert second == ANSWER
    assert way.service.struck == 1


async def test_calls_of_other_operations_pass(way: Way) -> None:
    deed = way.arm(Position.BEFORE_DELIVERY)

    assert await way.call("resolve") == ANSWER
    assert not deed.struck.is_set()


@pytest.mark.parametrize("way", [1], indirect=True)
@pytest.mark.parametrize("position", [Position.AFTER_DELIVERY, Position.AFTER_ANSWER, Position.HALF_AN_ANSWER])
async def test_a_call_that_is_never_answered_does_not_use_the_fault_up(way: Way, position: Position) -> None:
    deed = way.arm(position)

    unanswered = await way.call(within_s=0.3)
    await way.call()

    assert unanswered == b""
    assert deed.struck.is_set()


async def test_of_calls_at_the_same_time_one_is_struck(way: Way) -> None:
    way.arm(Position.AFTER_DELIVERY)

    answers = await asyncio.gather(*(way.call() for _ in range(5)))

    assert sorted(answers) == [b"", *[ANSWER] * 4]
    assert way.service.struck == 1


async def test_a_caller_hears_at_once_that_the_service_has_ended_an_idle_connection() -> None:
    ends = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ANSWER)
        await ends.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    proxy = Proxy(service="account", port=server.sockets[0].getsockname()[1], director=Director())
    reader, writer = await asyncio.open_connection("127.0.0.1", await proxy.start())
    try:
        async with asyncio.timeout(5):
            writer.write(b"POST /rpc/account/transfer HTTP/1.1\r\nHost: a\r\n\r\n")
            assert await reader.readexactly(len(ANSWER)) == ANSWER
            ends.set()
            with suppress(ConnectionResetError):
                assert await reader.read() == b""
    finally:
        writer.close()
        await proxy.close()
        server.close()
