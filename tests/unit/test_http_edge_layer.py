"""The edge layer and the body reader, without a socket."""

from __future__ import annotations

from typing import Any

import pytest

from payflow.platform.context import current_traceparent
from payflow.platform.http.asgi import Message, Receive, Scope, Send, header, json_response, read_body, send_response
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.errors import ClientGone, PayloadTooLarge
from payflow.platform.http.trace import continue_trace, current_trace_id, trace_id_of

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def request(*headers: tuple[bytes, bytes], method: str = "POST", path: str = "/x") -> Scope:
    return {"type": "http", "method": method, "path": path, "headers": list(headers)}


def parts(*bodies: bytes, then_gone: bool = False) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    if not then_gone:
        messages[-1]["more_body"] = False

    async def receive() -> Message:
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    return receive


async def ask(layer: EdgeLayer, scope: Scope, receive: Receive | None = None) -> list[Message]:
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await layer(scope, receive or parts(b""), send)
    return sent


def layer_of(status: int, content_type: bytes, *, public: bool, body: bytes = b"own words") -> EdgeLayer:
    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-type", content_type)] if content_type else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return EdgeLayer(app, service="demo", public=public)


async def test_a_body_is_joined_from_its_parts() -> None:
    assert await read_body(request(), parts(b"ab", b"", b"cd"), limit_bytes=4) == b"abcd"
    assert await read_body(request(), parts(b""), limit_bytes=4) == b""


@pytest.mark.parametrize("bodies", [(b"abcde",), (b"abc", b"de"), (b"abc", b"de", b"never read")])
async def test_a_body_beyond_the_limit_is_refused_as_soon_as_it_is_known(bodies: tuple[bytes, ...]) -> None:
    with pytest.raises(PayloadTooLarge):
        await read_body(request(), parts(*bodies), limit_bytes=4)


async def test_a_length_beyond_the_limit_is_refused_unread() -> None:
    async def never() -> Message:
        raise AssertionError("the body was read")

    with pytest.raises(PayloadTooLarge):
        await read_body(request((b"content-length", b"5")), never, limit_bytes=4)


async def test_a_client_that_goes_away_is_answered_nothing() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send_response(send, json_response(200, await read_body(scope, receive)))

    with pytest.raises(ClientGone):
        await read_body(request(), parts(b"ab", then_gone=True))
    assert await ask(EdgeLayer(app, service="demo", public=True), request(), parts(b"ab", then_gone=True)) == []


@pytest.mark.parametrize(
    ("status", "content_type", "public", "is_replaced"),
    [
        (404, b"", True, True),
        (404, b"", False, True),
        (404, b"text/plain", False, True),
        (404, b"application/json", True, True),
        (422, b"application/problem+json", True, False),
        (409, b"application/msgpack", False, False),
        (200, b"text/html", True, False),
        (500, b"text/plain; charset=utf-8", True, True),
    ],
)
async def test_a_frameworks_error_becomes_a_problem_and_ours_stays(
    status: int, content_type: bytes, public: bool, is_replaced: bool
) -> None:
    sent = await ask(layer_of(status, content_type, public=public), request())

    body = b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] == status
    assert (body != b"own words") == is_replaced
    if is_replaced:
        assert (b"content-type", b"application/problem+json") in sent[0]["headers"]


async def test_a_health_answer_keeps_its_own_words() -> None:
    sent = await ask(layer_of(503, b"application/json", public=True), request(path="/health", method="GET"))

    assert sent[1]["body"] == b"own words"


async def test_a_services_caller_decides_about_sampling_and_a_client_does_not() -> None:
    seen: list[Any] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append((current_traceparent.get(), current_trace_id()))
        await send_response(send, json_response(200, b"{}"))

    await ask(EdgeLayer(app, service="demo", public=False), request((b"traceparent", PARENT), path="/rpc/demo/do"))
    await ask(EdgeLayer(app, service="demo", public=False), request((b"traceparent", PARENT)))
    await ask(EdgeLayer(app, service="demo", public=True), request((b"traceparent", PARENT)))
    await ask(EdgeLayer(app, service="demo", public=True, is_sampled=lambda: True), request())

    assert [traceparent[-2:] for traceparent, _ in seen] == ["01", "00", "00", "01"]
    assert [trace_id == PARENT[3:35].decode() for _, trace_id in seen] == [True, True, True, False]
    assert all(trace_id == trace_id_of(traceparent) for traceparent, trace_id in seen)


def test_new_traces_differ_and_an_unknown_flag_is_not_passed_on() -> None:
    traces = {continue_trace(None) for _ in range(100)}

    assert len({trace[3:35] for trace in traces}) == 100
    assert continue_trace(PARENT[:-2] + b"fe").endswith("-00")
    assert continue_trace(PARENT[:-2] + b"ff").endswith("-01")


def test_a_header_is_found_by_its_lower_case_name() -> None:
    scope = request((b"a", b"1"), (b"a", b"2"))

    assert (header(scope, b"a"), header(scope, b"b")) == (b"1", None)
