"""Calls between services over real sockets: answers, traces, deadlines, who may call, and overload."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, ClassVar, Protocol

import msgspec
import pytest
import structlog

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Overloaded, Rejection, Unavailable, UnknownOutcome
from payflow.platform.context import current_deadline, current_traceparent
from payflow.platform.rpc import in_process
from payflow.platform.rpc.client import NotInContract, RpcClients
from payflow.platform.rpc.identity import Signer, ensure_keys
from tests.builders_rpc import (
    Ask,
    Echo,
    EchoService,
    RawPeer,
    Said,
    app_of,
    client_of,
    make_keys,
    post,
    reply_with,
    said,
    until,
)
from tests.support.serving import serving

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


@pytest.fixture(scope="module")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def echo() -> EchoService:
    return EchoService()


@pytest.fixture
async def client(echo: EchoService, keys_dir: Path) -> AsyncIterator[Echo]:
    async with serving(app_of(echo, keys_dir)) as url, client_of(url, keys_dir) as client:
        yield client


# --- what arrives -----------------------------------------------------------------------------------------------


async def test_each_item_has_its_own_answer_and_a_refused_one_does_not_touch_its_neighbours(client: Echo) -> None:
    answers = await client.say([Ask(word="a"), Ask(word="refuse"), Ask(word="c")])

    assert answers == [Said(word="a"), Rejection("not this one", word="refuse"), Said(word="c")]


async def test_callers_of_the_same_moment_share_a_call(client: Echo, echo: EchoService) -> None:
    answers = await asyncio.gather(*(client.say([Ask(word=str(n))]) for n in range(20)))

    assert answers == [[Said(word=str(n))] for n in range(20)]
    assert sum(len(batch) for batch in echo.batches) == 20
    assert len(echo.batches) <= 2


async def test_the_trace_goes_on_behind_the_call(client: Echo, echo: EchoService) -> None:
    current_traceparent.set(TRACEPARENT)

    await client.say([Ask(word="a")])

    (trace,) = echo.traces
    assert trace.startswith(f"00-{TRACE_ID}-")


async def test_a_later_call_of_a_busy_link_carries_the_trace_of_its_own_caller(client: Echo, echo: EchoService) -> None:
    async def ask(digit: str) -> None:
        current_traceparent.set(f"00-{digit * 32}-{digit * 16}-01")
        await client.say([Ask(word=digit)])

    echo.gate.clear()
    asks = []
    for digit in "123":
        asks.append(asyncio.create_task(ask(digit)))
        await asyncio.sleep(0.05)
    echo.gate.set()
    await asyncio.gather(*asks)

    assert [(batch, trace[3:4]) for batch, trace in zip(echo.batches, echo.traces, strict=True)] == [
        (["1"], "1"),
        (["2"], "2"),
        (["3"], "3"),
    ]


async def test_the_callers_deadline_is_passed_on(client: Echo, echo: EchoService) -> None:
    token = current_deadline.set(asyncio.get_running_loop().time() + 0.5)
    try:
        await client.say([Ask(word="hurried")])
    finally:
        current_deadline.reset(token)
    await client.say([Ask(word="patient")])

    hurried, patient = echo.seconds_left
    assert 0.2 < hurried <= 0.5
    assert 1.5 < patient <= 2.0


async def test_a_deadline_that_passed_already_sends_nothing(client: Echo, echo: EchoService) -> None:
    token = current_deadline.set(asyncio.get_running_loop().time() - 1)
    try:
        (answer,) = await client.say([Ask(word="late")])
    finally:
        current_deadline.reset(token)

    assert isinstance(answer, Unavailable)
    assert echo.batches == []


async def test_work_that_takes_longer_than_the_deadline_ends_with_an_unknown_outcome(
    client: Echo, echo: EchoService
) -> None:
    echo.gate.clear()
    began = asyncio.get_running_loop().time()
    token = current_deadline.set(began + 0.3)
    try:
        (answer,) = await client.say([Ask(word="slow")])
    finally:
        current_deadline.reset(token)

    assert isinstance(answer, UnknownOutcome)
    assert asyncio.get_running_loop().time() - began < 0.8


async def test_a_bug_of_the_service_leaves_the_outcome_unknown_and_is_not_repeated(
    client: Echo, echo: EchoService
) -> None:
    (answer,) = await client.say([Ask(word="fail")])

    assert isinstance(answer, UnknownOutcome)
    assert echo.batches == [["fail"]]


# --- who may call -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caller", "callee", "status", "code"),
    [
        (None, "", 401, "SERVICE_IDENTITY_REQUIRED"),
        ("confirm", "account", 401, "SERVICE_IDENTITY_REQUIRED"),
        ("ofac", "risk", 403, "CALLER_NOT_ALLOWED"),
        ("confirm", "risk", 200, None),
    ],
    ids=["nobody", "for another service", "not in the contract", "allowed"],
)
async def test_only_a_known_and_allowed_caller_is_answered(
    echo: EchoService, keys_dir: Path, caller: str | None, callee: str, status: int, code: str | None
) -> None:
    authorization = None
    if caller is not None:
        authorization = f"Bearer {Signer.load(service=caller, directory=keys_dir).token_for(callee)}"

    async with serving(app_of(echo, keys_dir)) as url:
        found, document = await post(url, authorization)

    assert (found, document.get("error")) == (status, code)


async def test_what_is_no_message_of_the_contract_is_refused_as_unreadable(echo: EchoService, keys_dir: Path) -> None:
    authorization = f"Bearer {Signer.load(service='confirm', directory=keys_dir).token_for('risk')}"

    async with serving(app_of(echo, keys_dir)) as url:
        status, _ = await post(url, authorization, b"not msgpack")

    assert status == 400
    assert echo.batches == []


async def test_an_identity_that_the_peer_does_not_know_is_unavailable_for_nothing_happened(
    echo: EchoService, keys_dir: Path, tmp_path: Path
) -> None:
    ensure_keys(tmp_path, ["confirm"])

    async with serving(app_of(echo, keys_dir)) as url, client_of(url, tmp_path) as client:
        (answer,) = await client.say([Ask(word="a")])

    assert isinstance(answer, Unavailable)
    assert echo.batches == []


class NewerEcho(Protocol):
    """The same service in the release after, which can do more."""

    service: ClassVar[str] = "risk"

    @operation(callers={"confirm"}, timeout_s=2)
    async def say(self, asks: list[Ask]) -> Answers[Said]: ...

    @operation(callers={"confirm"}, timeout_s=2)
    async def shout(self, asks: list[Ask]) -> Answers[Said]: ...


async def test_an_operation_that_the_peers_release_does_not_have_is_unavailable_and_the_others_go_on(
    echo: EchoService, keys_dir: Path
) -> None:
    clients = RpcClients(signer=Signer.load(service="confirm", directory=keys_dir), queue_max=10)
    async with serving(app_of(echo, keys_dir)) as url:
        client = clients.connect(NewerEcho, url)
        with structlog.testing.capture_logs() as logs:
            (unknown,) = await client.shout([Ask(word="a")])
        (known,) = await client.say([Ask(word="a")])
        await clients.close()

    assert isinstance(unknown, NotInContract)
    assert known == Said(word="a")
    assert [(line["log_level"], line["status"]) for line in logs if line["event"] == "rpc.not_in_contract"] == [
        ("error", 404)
    ]


async def test_the_binding_in_one_process_refuses_what_the_wire_refuses(echo: EchoService, keys_dir: Path) -> None:
    nonsense: Any = "not an ask"

    async with serving(app_of(echo, keys_dir)) as url, client_of(url, keys_dir) as remote:
        for client in (remote, in_process(Echo, echo, caller="confirm")):
            (forbidden,) = await client.whisper([Ask(word="a")])
            (unreadable,) = await client.say([nonsense])
            assert isinstance(forbidden, NotInContract)
            assert isinstance(unreadable, NotInContract)
            answers = await client.say([Ask(word="a"), Ask(word="refuse")])
            assert answers == [Said(word="a"), Rejection("not this one", word="refuse")]


# --- too much work ----------------------------------------------------------------------------------------------


async def test_calls_beyond_the_bound_are_refused_with_503_in_a_moment(echo: EchoService, keys_dir: Path) -> None:
    echo.gate.clear()
    authorization = f"Bearer {Signer.load(service='confirm', directory=keys_dir).token_for('risk')}"
    body = msgspec.msgpack.encode([Ask(word="a")])

    async with serving(app_of(echo, keys_dir, PAYFLOW_RPC_BATCHES_MAX="1")) as url:
        # One is worked on, four wait.
        accepted = [asyncio.create_task(post(url, authorization, body)) for _ in range(5)]
        await asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
        status, document = await post(url, authorization, body)
        took_s = asyncio.get_running_loop().time() - began
        echo.gate.set()
        answers = await asyncio.gather(*accepted)

    assert (status, document["error"]) == (503, "OVERLOADED")
    assert took_s < 0.1
    assert {status for status, _ in answers} == {200}


async def test_an_overloaded_service_is_told_as_overloaded_and_not_asked_again(keys_dir: Path) -> None:
    overloaded = reply_with(503, b'{"error":"OVERLOADED"}', content_type="application/problem+json")

    async with RawPeer(overloaded, said("a")) as peer, client_of(peer.url, keys_dir) as client:
        (answer,) = await client.say([Ask(word="a")])

    assert isinstance(answer, Overloaded)
    assert len(peer.requests) == 1


async def test_more_items_than_may_wait_are_refused_at_once(echo: EchoService, keys_dir: Path) -> None:
    echo.gate.clear()

    async with serving(app_of(echo, keys_dir)) as url, client_of(url, keys_dir) as client:
        # Two calls of 500 are under way, 1,000 items wait.
        accepted = []
        for under_way in (1, 2, 2, 2):
            accepted.append(asyncio.create_task(client.say([Ask(word="a")] * 500)))
            await until(lambda count=under_way: len(echo.batches) == count)
            await asyncio.sleep(0)
        began = asyncio.get_running_loop().time()
        (answer,) = await client.say([Ask(word="one too many")])
        took_s = asyncio.get_running_loop().time() - began
        echo.gate.set()
        answers = await asyncio.gather(*accepted)

    assert isinstance(answer, Overloaded)
    assert [len(batch) for batch in answers] == [500] * 4
    assert Said(word="a") in answers[3]
    assert took_s < 0.1
