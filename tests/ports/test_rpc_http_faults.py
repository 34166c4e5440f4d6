"""Calls between services when the other side is gone, dies in mid-call, stays silent, or talks nonsense."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.platform.context import current_deadline
from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.identity import Signer
from tests.builders_rpc import (
    Ask,
    Echo,
    EchoService,
    RawPeer,
    Reply,
    Said,
    app_of,
    client_of,
    client_of_stopping,
    die,
    die_for_good,
    make_keys,
    reply_with,
    said,
    stay_silent,
    until,
)
from tests.support.serving import free_socket, serving


@pytest.fixture(scope="module")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def echo() -> EchoService:
    return EchoService()


# --- what goes wrong on the way ---------------------------------------------------------------------------------


async def test_a_service_that_does_not_listen_is_unavailable_soon(keys_dir: Path) -> None:
    with free_socket() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    began = asyncio.get_running_loop().time()

    async with client_of(url, keys_dir) as client:
        for ask in (client.say, client.say_once):
            (answer,) = await ask([Ask(word="a")])
            assert isinstance(answer, Unavailable), answer

    assert asyncio.get_running_loop().time() - began < 2


async def test_a_service_that_is_back_after_a_moment_is_reached_by_repeating(echo: EchoService, keys_dir: Path) -> None:
    with free_socket() as bound:
        port = bound.getsockname()[1]

    async with client_of(f"http://127.0.0.1:{port}", keys_dir) as client:
        asked = asyncio.create_task(client.say_once([Ask(word="a")]))
        await asyncio.sleep(0.03)
        async with serving(app_of(echo, keys_dir), bound=free_socket(port)):
            assert await asked == [Said(word="a")]

    assert echo.batches == [["a"]]


async def test_a_call_that_was_cut_is_repeated_with_the_same_body_where_that_is_safe(keys_dir: Path) -> None:
    async with RawPeer(die, die, said("a")) as peer, client_of(peer.url, keys_dir) as client:
        answers = await client.say([Ask(word="a")])

    assert answers == [Said(word="a")]
    assert len(peer.requests) == 3
    assert len(set(peer.requests)) == 1


async def test_a_call_that_was_cut_is_not_repeated_where_that_is_not_safe(keys_dir: Path) -> None:
    async with RawPeer(die, said("a")) as peer, client_of(peer.url, keys_dir) as client:
        (answer,) = await client.say_once([Ask(word="a")])

    assert isinstance(answer, UnknownOutcome)
    assert len(peer.requests) == 1


async def test_a_service_that_died_in_mid_call_and_stays_away_leaves_the_outcome_unknown(keys_dir: Path) -> None:
    async with RawPeer(die_for_good) as peer, client_of(peer.url, keys_dir) as client:
        (answer,) = await client.say([Ask(word="a")])

    assert isinstance(answer, UnknownOutcome), "the later refused connections say nothing of the first call"
    assert len(peer.requests) == 1


async def test_a_refusal_after_a_cut_call_leaves_the_outcome_unknown(keys_dir: Path) -> None:
    overloaded = reply_with(503, b'{"error":"OVERLOADED"}', content_type="application/problem+json")

    async with RawPeer(die, overloaded) as peer, client_of(peer.url, keys_dir) as client:
        (answer,) = await client.say([Ask(word="a")])

    assert isinstance(answer, UnknownOutcome)


async def test_a_service_that_stays_silent_leaves_the_outcome_unknown_at_the_deadline(keys_dir: Path) -> None:
    async with RawPeer(stay_silent, stay_silent) as peer, client_of(peer.url, keys_dir) as client:
        token = current_deadline.set(asyncio.get_running_loop().time() + 0.2)
        try:
            (answer,) = await client.say([Ask(word="a")])
        finally:
            current_deadline.reset(token)

    assert isinstance(answer, UnknownOutcome)
    assert len(peer.requests) == 1


@pytest.mark.parametrize(
    "reply",
    [said(), said("a", "b"), reply_with(200, b"<html>"), reply_with(200, b""), reply_with(500, b"")],
    ids=["no answer", "one too many", "another format", "nothing", "an error of the server"],
)
async def test_an_answer_that_cannot_be_read_leaves_the_outcome_unknown(keys_dir: Path, reply: Reply) -> None:
    async with RawPeer(reply) as peer, client_of(peer.url, keys_dir) as client:
        (answer,) = await client.say([Ask(word="a")])

    assert isinstance(answer, UnknownOutcome)


async def test_a_service_that_is_stopped_at_work_leaves_the_outcome_unknown(echo: EchoService, keys_dir: Path) -> None:
    echo.gate.clear()

    async with client_of_stopping(echo, keys_dir) as (client, stop):
        asked = asyncio.create_task(client.say_once([Ask(word="a")]))
        await until(lambda: bool(echo.batches))
        await stop()
        (answer,) = await asked

    assert isinstance(answer, UnknownOutcome)


async def test_a_service_that_is_stopped_finishes_the_call_in_hand(echo: EchoService, keys_dir: Path) -> None:
    echo.gate.clear()

    async with client_of_stopping(echo, keys_dir) as (client, stop):
        asked = asyncio.create_task(client.say_once([Ask(word="a")]))
        await until(lambda: bool(echo.batches))
        stopping = asyncio.create_task(stop())
        await asyncio.sleep(0.05)
        echo.gate.set()

        assert await asked == [Said(word="a")]
        await stopping


async def test_a_service_that_never_answers_is_left_alone_after_some_failures(keys_dir: Path) -> None:
    with free_socket() as bound:
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
    clients = RpcClients(signer=Signer.load(service="confirm", directory=keys_dir), queue_max=100)
    client = clients.connect(Echo, url)
    for _ in range(2):
        await client.say([Ask(word="a")])

    began = asyncio.get_running_loop().time()
    (answer,) = await client.say([Ask(word="a")])

    assert isinstance(answer, Unavailable)
    assert asyncio.get_running_loop().time() - began < 0.05
    assert clients.open_breakers() == [url]
    await clients.close()
