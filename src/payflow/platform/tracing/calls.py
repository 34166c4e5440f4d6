"""Spans of calls between services. A call is a batch: one span at each end, in the trace of one of its payments.

The other payments of the batch that are recorded get a span for the call in their own traces, linked both ways. Batches
of which nothing is recorded cost one span object at each end, which is thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import Context, ContextVar
from typing import Any, Final

from payflow.contracts.operation import OperationSpec
from payflow.kernel.errors import Overloaded, PayflowError
from payflow.platform.context import current_span, current_traceparent
from payflow.platform.tracing.answers import Teller, joined
from payflow.platform.tracing.span import LINKS_MAX, Kind, Span
from payflow.platform.tracing.tracer import Tracer, installed

# The recorded spans of those who share a call with the one in whose trace it goes on.
_others: Final[ContextVar[tuple[Span, ...]]] = ContextVar("spans_of_the_batch", default=())


def context_of_batch(contexts: Sequence[Context]) -> Context:
    """The context that a call for several callers goes on in: of one whose trace is recorded, if there is one."""
    chosen, spans = contexts[0], list[Span]()
    for context in contexts:
        span = context.get(current_span)
        if span is not None:
            if span.is_sampled and not any(known.is_sampled for known in spans):
                chosen = context
            spans.append(span)
    own = chosen.get(current_span)
    if spans and spans != [own]:
        chosen.run(_others.set, tuple(span for span in spans if span is not own)[:LINKS_MAX])
    return chosen


class CallSpans:
    """The spans of one operation's calls, at either end."""

    def __init__(self, spec: OperationSpec) -> None:
        self._name = f"{spec.service}/{spec.name}"
        self._service, self._method = spec.service, spec.name
        self._teller = Teller(spec)

    def begin_client(self) -> Span | None:
        """At the caller's end, in the call's own context: the span, now the one in hand. None: tracing is off."""
        tracer = installed()
        if tracer is None:
            return None
        span = self._describe(tracer.child(self._name, kind=Kind.CLIENT))
        for other in _others.get():
            span.link(trace_id=other.trace_id, span_id=other.span_id)
        current_span.set(span)
        current_traceparent.set(span.traceparent)
        return span

    def end_client(self, span: Span, items: Sequence[Any], outcome: Sequence[Any] | BaseException) -> None:
        """The answers are there, or will not come."""
        tracer = installed()
        if tracer is None:
            return
        span.set("payflow.items", len(items))
        if isinstance(outcome, BaseException):
            _fail(tracer, span, outcome)
        else:
            # What was decided is told by whoever decided it.
            self._teller.keep(tracer, span, outcome)
        for other in _others.get():
            if other.is_sampled:
                own = joined(span, traceparent=other.traceparent, kind=Kind.CLIENT)
                self._describe(own).error = span.error
                tracer.finish(own)
        tracer.finish(span)

    def begin_server(self, caller: bytes | None) -> Span | None:
        """At the callee's end: the span whose id the request's traceparent has. `caller`: the header received."""
        if installed() is None:
            return None
        span = self._describe(server_span(self._name, caller))
        current_span.set(span)
        return span

    def end_server(self, span: Span, items: Sequence[Any], outcome: Sequence[Any] | BaseException) -> None:
        """The answers are there, or the work failed."""
        tracer = installed()
        if tracer is None:
            return
        span.set("payflow.items", len(items))
        if isinstance(outcome, BaseException):
            _fail(tracer, span, outcome)
        else:
            self._teller.tell(tracer, span, items, outcome)
        tracer.finish(span)

    def _describe(self, span: Span) -> Span:
        span.attributes["rpc.system"] = "payflow"
        span.attributes["rpc.service"] = self._service
        span.attributes["rpc.method"] = self._method
        return span


def _fail(tracer: Tracer, span: Span, error: BaseException) -> None:
    code = error.code if isinstance(error, PayflowError) else type(error).__name__
    span.fail(code)
    if code != Overloaded.code:
        tracer.keep(span, "error")


def server_span(name: str, caller: bytes | None) -> Span:
    """The span of a request that was just received: its own traceparent is the one in hand."""
    traceparent = current_traceparent.get()
    parent_id = ""
    if caller is not None and caller[3:35] == traceparent[3:35].encode("ascii"):
        parent_id = caller[36:52].decode("ascii")
    return Span(name, kind=Kind.SERVER, traceparent=traceparent, parent_id=parent_id)
