"""Connections between services: kept alive, never shared by two requests, ended where an answer may come late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvloop

from payflow.platform.rpc.connections import Connections, NoAnswer, NotConnected

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
# The services run on uvloop, whose transports are of classes of their own.
LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Runs a coroutine to its end on a loop of its own."""

    def on_a_loop(work: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(asyncio.wait_for(work, 10))

    return on_a_loop


class Peer:
    """A server that answers each request by the next of its replies."""

    def __init__(self, *replies: bytes) -> None:
        self.replies = list(replies)
        self.connections = 0
        self.requests: list[bytes] = []
        self.has_replied = asyncio.Event()

    async def __aenter__(self) -> Connections:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.pool = Connections(f"http://127.0.0.1:{port}/base/")
        return self.pool

    async def __aexit__(self, *_: object) -> None:
        self.pool.close()
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.replies:
                head = await reader.readuntil(b"\r\n\r\n")
                body = await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                self.requests.append(head + body)
                reply = self.replies.pop(0)
                if reply == b"":
                    break
                writer.write(reply)
                await writer.drain()
                self.has_replied.set()
            writer.close()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass


async def say(pool: Connections, body: bytes = b"x") -> tuple[int, bytes]:
    return await pool.post("/rpc/a/b", headers={"authorization": "Bearer t"}, body=body)


def test_a_connection_is_used_again(run: Any) -> None:
    peer = Peer(ANSWER, ANSWER, ANSWER)

    async def story() -> list[tuple[int, bytes]]:
        async with peer as pool:
            return [await say(pool) for _ in range(3)]

    assert run(story()) == [(200, b"ok")] * 3
    assert peer.connections == 1
    assert peer.requests[0].startswith(b"POST /base/rpc/a/b HTTP/1.1\r\nhost: 127.0.0.1:")
    assert peer.requests[0].endswith(b"\r\ncontent-length: 1\r\n\r\nx")


def test_requests_at_once_have_connections_of_their_own(run: Any) -> None:
    peer = Peer(*[ANSWER] * 4)

    async def story() -> list[tuple[int, bytes]]:
        async with peer as pool:
            return list(await asyncio.gather(*(say(pool) for _ in range(4))))

    assert run(story()) == [(200, b"ok")] * 4
    assert peer.connections == 4


def test_an_answer_in_chunks_and_pieces_is_read_whole(run: Any) -> None:
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
    peer = Peer(interim + b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    async def story() -> tuple[int, bytes]:
        async with peer as pool:
            return await say(pool)

    assert run(story()) == (200, b"abcde")


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH\r\n"], ids=["cut", "other"])
def test_a_connection_that_ends_or_speaks_otherwise_gives_no_answer_and_is_not_used_again(
    run: Any, reply: bytes
) -> None:
    peer = Peer(reply, ANSWER)

    async def story() -> tuple[int, bytes]:
        async with peer as pool:
            with pytest.raises(NoAnswer):
                await say(pool)
            return await say(pool)

    assert run(story()) == (200, b"ok")
    assert peer.connections == 2


def test_a_connection_whose_answer_stopped_halfway_is_not_used_again(run: Any) -> None:
    peer = Peer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", ANSWER)

    async def story() -> tuple[int, bytes]:
        async with peer as pool:
            half = asyncio.create_task(say(pool))
            await peer.has_replied.wait()
            await asyncio.sleep(0.05)
            half.cancel()
            with pytest.raises(asyncio.CancelledError):
                await half
            return await say(pool)

    assert run(story()) == (200, b"ok")
    assert peer.connections == 2


def test_a_late_answer_meets_no_other_request(run: Any) -> None:
    is_asked, may_answer, has_answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def serve_late(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(1)
        if b"slow" in head:
            is_asked.set()
            await may_answer.wait()
            has_answered.set()
        writer.write(ANSWER.replace(b"ok", b"sl" if b"slow" in head else b"ok"))

    async def story() -> tuple[int, bytes]:
        server = await asyncio.start_server(serve_late, "127.0.0.1", 0)
        pool = Connections(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        late = asyncio.create_task(pool.post("/slow", headers={}, body=b"x"))
        await is_asked.wait()
        late.cancel()
        with pytest.raises(asyncio.CancelledError):
            await late
        may_answer.set()
        answer = await pool.post("/fast", headers={}, body=b"x")
        await has_answered.wait()
        await asyncio.sleep(0.05)
        pool.close()
        server.close()
        return answer

    assert run(story()) == (200, b"ok")


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(run: Any) -> None:
    closing = ANSWER.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    peer = Peer(closing, ANSWER)

    async def story() -> list[tuple[int, bytes]]:
        async with peer as pool:
            return [await say(pool), await say(pool)]

    assert run(story()) == [(200, b"ok")] * 2
    assert peer.connections == 2


def test_a_connection_ends_after_a_while_so_that_a_process_that_came_later_gets_its_share(run: Any) -> None:
    peer = Peer(*[ANSWER] * 3)

    async def story() -> list[tuple[int, bytes]]:
        async with peer as other:
            pool = Connections(f"http://{other._authority}/base", age_s=(1.0, 1.0))
            answers = [await say(pool), await say(pool)]
            await asyncio.sleep(1.1)
            answers.append(await say(pool))
            pool.close()
            return answers

    assert run(story()) == [(200, b"ok")] * 3
    assert peer.connections == 2


def test_nobody_there_is_told_apart_from_no_answer(run: Any) -> None:
    async def story() -> None:
        pool = Connections("http://127.0.0.1:1")
        with pytest.raises(NotConnected):
            await say(pool)

    run(story())


@pytest.mark.parametrize("url", ["127.0.0.1:80", "ftp://a", "http://", ""])
def test_an_address_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a service"):
        Connections(url)
