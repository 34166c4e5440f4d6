"""What travels with a request through one process: its trace and its deadline."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from payflow.platform.tracing.span import Span

# W3C traceparent of the work in hand; empty outside a request.
current_traceparent: ContextVar[str] = ContextVar("current_traceparent", default="")

# The span of the work in hand; None where nothing records it, as for nearly all payments.
current_span: ContextVar[Span | None] = ContextVar("current_span", default=None)

# Instant on the event loop's clock (seconds) after which nobody waits for the answer any more.
current_deadline: ContextVar[float | None] = ContextVar("current_deadline", default=None)


def deadline_within(timeout_s: float) -> float:
    """The earlier of now + `timeout_s` and the deadline passed on by the caller, on the event loop's clock."""
    own = asyncio.get_running_loop().time() + timeout_s
    inherited = current_deadline.get()
    return own if inherited is None else min(own, inherited)
