"""A span as this code records it: a few slots, no locks, and the ids of the traceparent that is on its way already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from time import time_ns
from typing import Final, TypeAlias

Value: TypeAlias = str | bool | int | float | Sequence[str]

# What one span may hold: a batch of hundreds must not make a message of megabytes.
EVENTS_MAX: Final = 16
LINKS_MAX: Final = 64
HELD_MAX: Final = 64


class Kind(IntEnum):
    """What a span is, by OpenTelemetry's numbers."""

    INTERNAL = 0
    SERVER = 1
    CLIENT = 2
    PRODUCER = 3
    CONSUMER = 4


class Span:
    """One piece of work in one trace. Ids are lower-case hexadecimal as in a traceparent; times are Unix nanoseconds.

    `is_sampled`: the trace is recorded from its head on. A span that is not sampled is made for calls alone, that is
    for batches and never for a payment, and goes nowhere unless it is kept (see Tracer.finish).
    """

    __slots__ = (
        "attributes",
        "ended_ns",
        "error",
        "events",
        "held",
        "is_kept",
        "is_sampled",
        "kind",
        "links",
        "name",
        "parent",
        "parent_id",
        "span_id",
        "started_ns",
        "trace_id",
    )

    def __init__(
        self,
        name: str,
        *,
        kind: Kind,
        traceparent: str,
        parent_id: str = "",
        parent: Span | None = None,
        started_ns: int | None = None,
    ) -> None:
        self.name = name
        self.kind = kind
        self.trace_id = traceparent[3:35]
        self.span_id = traceparent[36:52]
        self.is_sampled = traceparent[-1:] == "1"
        self.parent_id = parent_id
        self.parent = parent
        self.started_ns = time_ns() if started_ns is None else started_ns
        self.ended_ns = 0
        self.is_kept = False
        self.error = ""
        self.attributes: dict[str, Value] = {}
        self.events: list[tuple[str, int, Mapping[str, Value]]] = []
        self.links: list[tuple[str, str]] = []
        self.held: list[Span] = []

    @property
    def traceparent(self) -> str:
        """What travels to whoever works on a part of this."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.is_sampled else '00'}"

    @property
    def is_recorded(self) -> bool:
        """Whether this span will be exported for certain, so that telling it more is worth the time."""
        return self.is_sampled or self.is_kept

    def set(self, name: str, value: Value) -> None:
        """Set an attribute."""
        self.attributes[name] = value

    def tell(self, name: str, attributes: Mapping[str, Value]) -> None:
        """Add something that happened meanwhile; beyond sixteen nothing more."""
        if len(self.events) < EVENTS_MAX:
            self.events.append((name, time_ns(), attributes))

    def link(self, *, trace_id: str, span_id: str) -> None:
        """Point to a span of another trace that shares this work."""
        if len(self.links) < LINKS_MAX:
            self.links.append((trace_id, span_id))

    def fail(self, error: str) -> None:
        """The work failed; `error` is a code or an exception's type, never its message."""
        self.error = error


def exemplar_of(span: Span | None) -> dict[str, str] | None:
    """What ties a measured value to its trace; None where the trace is not recorded."""
    return {"trace_id": span.trace_id} if span is not None and span.is_sampled else None
