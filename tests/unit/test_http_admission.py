"""Admission: bounded work, bounded waiting, places never lost."""

from __future__ import annotations

import asyncio

import pytest

from payflow.kernel.errors import Overloaded
from payflow.platform.http.admission import Admission, step_aside, turn_into_stream
from payflow.platform.http.asgi import ASGIApp, Message, Receive, Scope, Send


async def receive() -> Message:
    return {"type": "http.request"}


async def send(_message: Message) -> None:
    return None


class Gate:
    """An application whose requests wait until it is opened."""

    def __init__(self) -> None:
        self.opened = asyncio.Event()
        self.order: list[int] = []

    async def __call__(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.order.append(scope["number"])
        if scope.get("stream"):
            turn_into_stream(scope)
        if scope.get("waits_outside") and not step_aside(scope):
            return
        await self.opened.wait()


def call(app: ASGIApp, number: int, *, stream: bool = False, waits_outside: bool = False) -> asyncio.Task[None]:
    scope = {"type": "http", "path": "/", "number": number, "stream": stream, "waits_outside": waits_outside}

    async def run() -> None:
        await app(scope, receive, send)

    return asyncio.create_task(run())


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_requests_beyond_the_queue_are_refused_and_those_in_it_served_in_order() -> None:
    gate, admission = Gate(), Admission(2, 2)
    app = admission.wrap(gate)
    tasks = [call(app, number) for number in range(5)]
    await settle()
    busy = (admission.in_flight, admission.waiting, tasks[4].done())

    gate.opened.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert busy == (2, 2, True)
    assert results[:4] == [None] * 4
    assert isinstance(results[4], Overloaded)
    assert results[4].extra["retry_after_s"] == 1
    assert gate.order == [0, 1, 2, 3]
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_waiting_ends_after_its_bound_and_loses_no_place() -> None:
    gate, admission = Gate(), Admission(1, 5, queue_wait_max_s=0.02)
    app = admission.wrap(gate)
    first, second = call(app, 0), call(app, 1)

    with pytest.raises(Overloaded):
        await second
    gate.opened.set()
    await first

    assert (admission.in_flight, admission.waiting, admission.refused) == (0, 0, 1)


async def test_a_place_that_arrives_together_with_a_cancellation_goes_to_the_next() -> None:
    gate, admission = Gate(), Admission(1, 5)
    app = admission.wrap(gate)

    async def end_and_cancel_the_next() -> None:
        await app({"type": "http", "path": "/", "number": 0}, receive, send)
        second.cancel()  # it has been given the place and has not run yet

    first = asyncio.create_task(end_and_cancel_the_next())
    second, third = call(app, 1), call(app, 2)
    await settle()

    gate.opened.set()
    await asyncio.gather(first, third)

    assert second.cancelled()
    assert gate.order == [0, 2]
    assert (admission.in_flight, admission.waiting) == (0, 0)


async def test_a_request_that_fails_gives_its_place_back() -> None:
    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise ValueError

    admission = Admission(1, 0)
    app = admission.wrap(failing)

    for number in range(3):
        with pytest.raises(ValueError):
            await call(app, number)

    assert admission.in_flight == 0


async def test_open_streams_keep_no_payment_out_and_have_a_bound_of_their_own() -> None:
    gate, admission = Gate(), Admission(1, 0, max_streams=2)
    app = admission.wrap(gate)
    streams = []
    for number in range(2):
        streams.append(call(app, number, stream=True))
        await settle()
    payment = call(app, 2)
    await settle()
    open_now = (admission.streams, admission.in_flight)
    gate.opened.set()
    await asyncio.gather(*streams, payment)
    gate.opened.clear()

    streams = []
    for number in range(3):
        streams.append(call(app, number, stream=True))
        await settle()

    assert open_now == (2, 1)
    assert isinstance(streams[2].exception(), Overloaded)
    gate.opened.set()
    await asyncio.gather(*streams[:2])
    assert (admission.streams, admission.in_flight) == (0, 0)


async def test_who_waits_for_somebody_outside_keeps_no_payment_out_and_beyond_a_bound_does_not_wait() -> None:
    gate, admission = Gate(), Admission(1, 0, max_aside=2)
    app = admission.wrap(gate)
    outside = []
    for number in range(3):
        outside.append(call(app, number, waits_outside=True))
        await settle()
    payment = call(app, 3)
    await settle()
    under_way = (admission.aside, admission.in_flight, [task.done() for task in outside])

    gate.opened.set()
    await asyncio.gather(*outside, payment)

    assert under_way == (2, 1, [False, False, True])
    assert (admission.aside, admission.in_flight) == (0, 0)
