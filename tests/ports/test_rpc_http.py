"""Calls between services over real sockets: identity, deadlines, repeats, overload, traces, and cut connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import aiohttp
import msgspec
import pytest

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Overloaded, PayflowError, Rejection, Unavailable, UnknownOutcome
from payflow.platform.context import current_deadline, current_traceparent
from payflow.platform.http.asgi import ASGIApp
from payflow.platform.process import make_app
from payflow.platform.rpc import RpcClients, in_process
from payflow.platform.rpc.client import RefusedByContract
from payflow.platform.rpc.identity import Signer, ensure_keys
from payflow.platform.service import Runtime, Service
from tests.support.serving import free_socket, serving

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


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


@pytest.fixture(scope="module")
def keys_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("keys")
    ensure_keys(directory, ["confirm", "gateway", "risk", "ofac"])
    return directory


@pytest.fixture
def echo() -> EchoService:
    return EchoService()


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


@pytest.fixture
async def client(echo: EchoService, keys_dir: Path) -> AsyncIterator[Echo]:
    async with serving(app_of(echo, keys_dir)) as url, client_of(url, keys_dir) as client:
        yield client


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


async def _post(url: str, authorization: str | None, body: bytes = b"\x90") -> tuple[int, dict[str, Any]]:
    headers = {} if authorization is None else {"authorization": authorization}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/rpc/risk/say", data=body, headers=headers) as response,
    ):
        text = await response.read()
        return response.status, msgspec.json.decode(text) if response.status >= 400 else {}


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
        found, document = await _post(url, authorization)

    assert (found, document.get("error")) == (status, code)


async def test_what_is_no_message_of_the_contract_is_refused_as_unreadable(echo: EchoService, keys_dir: Path) -> None:
    authorization = f"Bearer {Signer.load(service='confirm', directory=keys_dir).token_for('risk')}"

    async with serving(app_of(echo, keys_dir)) as url:
        status, _ = await _post(url, authorization, b"not msgpack")

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


async def test_the_binding_in_one_process_refuses_what_the_wire_refuses(echo: EchoService, keys_dir: Path) -> None:
    nonsense: Any = "not an ask"

    async with serving(app_of(echo, keys_dir)) as url, client_of(url, keys_dir) as remote:
        for client in (remote, in_process(Echo, echo, caller="confirm")):
            with pytest.raises(RefusedByContract):
                await client.whisper([Ask(word="a")])
            with pytest.raises(RefusedByContract):
                await client.say([nonsense])
            answers = await client.say([Ask(word="a"), Ask(word="refuse")])
            assert answers == [Said(word="a"), Rejection("not this one", word="refuse")]


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
        await _until(lambda: bool(echo.batches))
        await stop()
        (answer,) = await asked

    assert isinstance(answer, UnknownOutcome)


async def test_a_service_that_is_stopped_finishes_the_call_in_hand(echo: EchoService, keys_dir: Path) -> None:
    echo.gate.clear()

    async with client_of_stopping(echo, keys_dir) as (client, stop):
        asked = asyncio.create_task(client.say_once([Ask(word="a")]))
        await _until(lambda: bool(echo.batches))
        stopping = asyncio.create_task(stop())
        await asyncio.sleep(0.05)
        echo.gate.set()

        assert await asked == [Said(word="a")]
        await stopping


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


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(3):
        while not is_so():  # noqa: ASYNC110 - the condition is a fact about a server, not an event
            await asyncio.sleep(0.005)


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


# --- too much work ----------------------------------------------------------------------------------------------


async def test_calls_beyond_the_bound_are_refused_with_503_in_a_moment(echo: EchoService, keys_dir: Path) -> None:
    echo.gate.clear()
    authorization = f"Bearer {Signer.load(service='confirm', directory=keys_dir).token_for('risk')}"
    body = msgspec.msgpack.encode([Ask(word="a")])

    async with serving(app_of(echo, keys_dir, PAYFLOW_RPC_BATCHES_MAX="1")) as url:
        # One is worked on, four wait.
        accepted = [asyncio.create_task(_post(url, authorization, body)) for _ in range(5)]
        await asyncio.sleep(0.2)
        began = asyncio.get_running_loop().time()
        status, document = await _post(url, authorization, body)
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
            await _until(lambda count=under_way: len(echo.batches) == count)
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
