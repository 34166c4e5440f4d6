"""Payments whose traces are recorded, and their spans once a collector has them."""

from __future__ import annotations

import asyncio

from payflow_dev.otlp.received import SeenSpan
from payflow_dev.otlp.receiver import Receiver
from tests.support.api import Answer, Customer


def trace_of(answer: Answer) -> tuple[str, bool]:
    """An answer's trace id, and whether it is recorded."""
    _, trace_id, _, flags = answer.headers["traceresponse"].split("-")
    return trace_id, flags == "01"


async def spans_of(collector: Receiver, trace_id: str, *, until: set[str]) -> list[SeenSpan]:
    """The spans of a trace once they come from all of these services, and each has the one that it is below."""

    def look() -> list[SeenSpan]:
        spans = collector.spans(trace_id)
        known = {span.span_id for span in spans} | {""}
        is_whole = until <= {span.service for span in spans} and {span.parent_id for span in spans} <= known
        return spans if is_whole else []

    try:
        found: list[SeenSpan] = await asyncio.to_thread(collector.wait_until, look, seconds=10)
    except TimeoutError:
        raise AssertionError(f"only {sorted({s.service for s in collector.spans(trace_id)})}") from None
    return found


async def pay_recorded(payer: Customer, to: str, amount: str = "10.00") -> tuple[Answer, str]:
    """A payment whose trace was sampled: at most so many a second are."""
    for _ in range(20):
        answer = await payer.pay(to, amount)
        trace_id, is_recorded = trace_of(answer)
        if is_recorded:
            return answer, trace_id
        await asyncio.sleep(0.2)
    raise AssertionError("no payment was sampled")
