"""Which spans are recorded: so many traces a second, and errors and reviews always."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow.kernel.errors import Overloaded, PayflowError, Rejection, Unavailable
from payflow.platform.context import current_span, current_traceparent
from payflow.platform.http.asgi import Message, Receive, Scope, Send, json_response, send_response
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.requests import ROUTE
from payflow.platform.tracing import Kind, install, installed, is_recorded, keep_trace, note, step, stop_recording
from payflow.platform.tracing.requests import ERROR
from payflow.platform.tracing.sampler import RateLimiter
from payflow.platform.tracing.span import EVENTS_MAX, HELD_MAX, LINKS_MAX, Span
from tests.builders_tracing import begin_root, traced, traceparent

PARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TRACE_ID = PARENT[3:35].decode()


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


# --- the sampler ------------------------------------------------------------------------------------------------


def test_no_more_than_the_rate_gets_through_however_many_ask() -> None:
    clock = Clock()
    limiter = RateLimiter(10, clock=clock)

    taken = 0
    for _ in range(10_000):
        taken += limiter.take()
        clock.now += 0.001

    assert 100 <= taken <= 110


@given(st.floats(0.1, 1000), st.lists(st.floats(0, 3), max_size=50))
def test_in_any_stretch_of_time_no_more_get_through_than_its_seconds_earn(rate: float, pauses: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(rate, clock=clock)
    began_at, taken = clock.now, 0

    for pause in pauses:
        clock.now += pause
        taken += sum(limiter.take() for _ in range(5))

    assert taken <= (clock.now - began_at) * rate + max(1.0, rate) + 1


def test_a_lone_request_after_a_pause_is_sampled() -> None:
    clock = Clock()
    limiter = RateLimiter(0.1, clock=clock)

    first = limiter.take()
    clock.now += 9
    too_early = limiter.take()
    clock.now += 1.1

    assert (first, too_early, limiter.take()) == (True, False, True)


def test_a_rate_of_zero_lets_nobody_through() -> None:
    assert not RateLimiter(0).take()


# --- what becomes of a span -------------------------------------------------------------------------------------


def test_a_span_below_a_sampled_one_is_recorded_in_its_trace() -> None:
    with traced() as traces:
        root = begin_root()
        with step("guard") as span:
            assert span is not None
            inner = current_traceparent.get()

    (seen,) = traces.spans
    assert (seen.trace_id, seen.parent_id, seen.name) == (root.trace_id, root.span_id, "guard")
    assert inner == f"00-{root.trace_id}-{seen.span_id}-01"
    assert current_span.get() is root


def test_what_raises_is_told_by_the_name_of_its_type_alone() -> None:
    with traced() as traces:
        begin_root()
        with pytest.raises(ValueError, match="Erika"), step("guard"):
            raise ValueError("Erika Musterfrau")

    (seen,) = traces.spans
    assert seen.error == "ValueError"
    assert "Erika" not in repr((seen.attributes, seen.events, seen.error))


def test_where_nothing_is_recorded_a_step_is_nothing() -> None:
    current_span.set(None)
    current_traceparent.set("")

    with step("off") as off, traced() as traces, step("no span in hand") as none:
        pass

    assert (off, none, traces.spans) == (None, None, [])


def test_an_unsampled_span_that_is_kept_takes_along_what_was_done_for_it() -> None:
    with traced() as traces:
        tracer = installed()
        assert tracer is not None
        current_span.set(None)
        current_traceparent.set(traceparent(is_sampled=False))
        call = tracer.child("risk/assess", kind=Kind.SERVER)
        with tracer.in_hand(call):
            with step("before"), step("below"):
                pass
            tracer.keep(call, "review")
            with step("after"):
                pass

    assert {span.name for span in traces.spans} == {"risk/assess", "before", "below", "after"}
    assert {span.trace_id for span in traces.spans} == {call.trace_id}
    assert call.attributes["payflow.kept_because"] == "review"


def test_an_unsampled_span_that_nobody_keeps_goes_nowhere() -> None:
    with traced() as traces:
        tracer = installed()
        assert tracer is not None
        current_traceparent.set(traceparent(is_sampled=False))
        call = tracer.child("risk/assess", kind=Kind.SERVER)
        with tracer.in_hand(call), step("below"):
            pass

    assert traces.spans == []


def test_so_many_are_kept_and_no_more() -> None:
    with traced(kept_per_second=5) as traces:
        tracer = installed()
        assert tracer is not None
        for _ in range(50):
            current_traceparent.set(traceparent(is_sampled=False))
            current_span.set(None)
            span = tracer.child("risk/assess", kind=Kind.SERVER)
            tracer.keep(span, "error")
            tracer.finish(span)

    assert len(traces.spans) == 5


def test_work_that_nobody_asked_for_begins_a_trace_of_its_own_at_the_samplers_rate() -> None:
    with traced(traces_per_second=2):
        tracer = installed()
        assert tracer is not None
        current_traceparent.set("")
        current_span.set(None)
        spans = [tracer.child("confirm/record_bank_answer", kind=Kind.CLIENT) for _ in range(5)]

    assert [span.is_sampled for span in spans] == [True, True, False, False, False]
    assert len({span.trace_id for span in spans}) == 5
    assert {span.parent_id for span in spans} == {""}


def test_a_span_is_bounded_whatever_it_is_told() -> None:
    span = Span("x", kind=Kind.INTERNAL, traceparent=traceparent())

    for number in range(500):
        span.tell("answers", {"n": number})
        span.link(trace_id=f"{number:032x}", span_id=f"{number:016x}")

    assert (len(span.events), len(span.links)) == (EVENTS_MAX, LINKS_MAX)


def test_an_unsampled_span_holds_no_more_than_it_may() -> None:
    with traced():
        tracer = installed()
        assert tracer is not None
        current_traceparent.set(traceparent(is_sampled=False))
        call = tracer.child("risk/assess", kind=Kind.SERVER)
        with tracer.in_hand(call):
            for _ in range(200):
                with step("below"):
                    pass

    assert len(call.held) == HELD_MAX


# --- requests ---------------------------------------------------------------------------------------------------


async def ask(
    app: Any, *, is_sampled: bool, path: str = "/payments/7", headers: list[tuple[bytes, bytes]] | None = None
) -> list[Message]:
    sent: list[Message] = []
    current_span.set(None)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(message: Message) -> None:
        sent.append(message)

    layer = EdgeLayer(app, service="demo", public=True, is_sampled=lambda: is_sampled)
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers or []}
    await layer(scope, receive, send)
    return sent


def answering(status: int, *, keep: str = "", error: PayflowError | None = None) -> Any:
    async def app(scope: Scope, _: Receive, send: Send) -> None:
        scope[ROUTE] = "/payments/{id:str}"
        if is_recorded():
            note(state="COMPLETED", risk_level=None)
        if keep:
            keep_trace(scope, keep)
        if error is not None:
            raise error
        await send_response(send, json_response(status, b"{}"))

    return app


async def test_a_sampled_request_is_the_root_of_its_trace_named_by_its_route() -> None:
    with traced() as traces:
        await ask(answering(200), is_sampled=True)

    (root,) = traces.spans
    assert (root.name, root.kind, root.parent_id) == ("GET /payments/{id}", Kind.SERVER, "")
    assert root.attributes == {
        "payflow.state": "COMPLETED",
        "http.request.method": "GET",
        "http.route": "/payments/{id}",
        "http.response.status_code": 200,
    }


async def test_a_clients_trace_goes_on_and_the_answer_names_our_span() -> None:
    with traced() as traces:
        sent = await ask(answering(200), is_sampled=True, headers=[(b"traceparent", PARENT)])

    (root,) = traces.spans
    assert (root.trace_id, root.parent_id) == (TRACE_ID, "00f067aa0ba902b7")
    assert (b"traceresponse", root.traceparent.encode()) in sent[0]["headers"]


async def test_a_client_does_not_decide_what_is_recorded() -> None:
    with traced() as traces:
        await ask(answering(200), is_sampled=False, headers=[(b"traceparent", PARENT)])

    assert traces.spans == []


async def test_an_unsampled_request_has_no_span() -> None:
    seen: list[Span | None] = []

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        seen.append(current_span.get())
        await send_response(send, json_response(200, b"{}"))

    with traced() as traces:
        await ask(app, is_sampled=False)

    assert (seen, traces.spans) == ([None], [])


@pytest.mark.parametrize(
    ("app", "why"),
    [
        (answering(503), "error"),
        (answering(200, error=Unavailable("gone")), "error"),
        (answering(200, error=PayflowError()), "error"),
        (answering(202, keep="review"), "review"),
    ],
)
async def test_an_error_and_a_review_are_recorded_though_they_were_not_sampled(app: Any, why: str) -> None:
    with traced() as traces:
        sent = await ask(app, is_sampled=False, headers=[(b"traceparent", PARENT)])

    (root,) = traces.spans
    assert root.attributes["payflow.kept_because"] == why
    assert (root.trace_id, root.parent_id) == (TRACE_ID, "00f067aa0ba902b7")
    assert root.started_ns <= root.ended_ns
    assert (b"traceresponse", root.traceparent.encode()) in sent[0]["headers"]


@pytest.mark.parametrize("app", [answering(200), answering(422), answering(200, error=Rejection("no"))])
async def test_a_refusal_is_no_error(app: Any) -> None:
    with traced() as traces:
        await ask(answering(422), is_sampled=False)

    assert traces.spans == []


async def test_what_was_refused_for_want_of_room_is_not_recorded_by_the_thousand() -> None:
    async def full(scope: Scope, _: Receive, send: Send) -> None:
        scope[ERROR] = Overloaded.code
        await send_response(send, json_response(503, b"{}"))

    with traced() as traces:
        await ask(full, is_sampled=False)
        await ask(answering(200, error=Overloaded()), is_sampled=False)

    assert traces.spans == []


async def test_a_stream_is_a_span_and_what_it_does_from_then_on_is_none() -> None:
    async def stream(scope: Scope, _: Receive, send: Send) -> None:
        with step("before"):
            pass
        stop_recording()
        with step("looks again and again"):
            pass
        await send_response(send, json_response(200, b"{}"))

    with traced() as traces:
        await ask(stream, is_sampled=True)

    assert [span.name for span in traces.spans] == ["before", "GET unmatched"]


async def test_questions_about_health_are_no_traces() -> None:
    with traced() as traces:
        await ask(answering(200), is_sampled=True, path="/live")

    assert traces.spans == []


def test_switched_off_there_is_no_tracer() -> None:
    install(None)

    assert installed() is None
