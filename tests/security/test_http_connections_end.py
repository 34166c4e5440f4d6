"""A connection that has ended leaves nothing for the collector of cycles, which comes seldom."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest
import uvloop
from uvicorn.server import ServerState

from payflow.platform.http.asgi import Receive, Scope, Send
from payflow.platform.http.protocol import EdgeProtocol
from payflow.platform.http.server import server_config
from tests.security.http_live import post
from tests.support.api import eventually

CONNECTIONS = 20
Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


async def app(scope: Scope, _receive: Receive, send: Send) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(0.2)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def asks_twice_and_leaves(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    for _ in range(2):
        writer.write(post(b"/echo", b"x"))
        await reader.readuntil(b"ok")
    writer.close()


async def leaves_before_the_answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(post(b"/slow", b"x"))
    await asyncio.sleep(0.05)
    writer.close()


async def says_nothing(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def sends_rubbish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"\x00\x01 rubbish\r\n\r\n")
    await reader.read()
    writer.close()


async def connections_left(client: Client) -> int:
    """How many of the connections that this client made and ended are still there."""
    config, state = server_config(app, drain_s=1.0), ServerState()
    config.load()
    made: list[weakref.ref[EdgeProtocol]] = []

    def connection() -> EdgeProtocol:
        protocol = EdgeProtocol(config, state, {})
        made.append(weakref.ref(protocol))
        return protocol

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    for _ in range(CONNECTIONS):
        await client(*await asyncio.open_connection("127.0.0.1", port))

    async def all_have_ended() -> bool:
        return not state.connections and not state.tasks

    await eventually(all_have_ended)
    await asyncio.sleep(0.05)
    server.close()
    assert len(made) == CONNECTIONS
    return sum(1 for reference in made if reference() is not None)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("client", [asks_twice_and_leaves, leaves_before_the_answer, says_nothing, sends_rubbish])
def test_a_connection_that_has_ended_is_given_back_at_once(
    no_collector: None, client: Client, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(connections_left(client)) == 0
