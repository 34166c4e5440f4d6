"""W3C Trace Context: continue a trace that a caller began, or begin one."""

from __future__ import annotations

import re
from typing import Final

from payflow.platform.context import current_traceparent
from payflow.platform.ids import new_span_id, new_trace_id

_TRACEPARENT: Final = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_NO_TRACE: Final = b"0" * 32
_NO_SPAN: Final = b"0" * 16


def continue_trace(header: bytes | None, *, is_sampled: bool | None = None) -> str:
    """The traceparent of this hop: the caller's trace id with a span id of our own, or a new trace.

    A header that breaks the rules of W3C Trace Context in any way counts as absent. `is_sampled` decides the sampled
    flag; None keeps the caller's, and a new trace is then not sampled.
    """
    trace_id, flags = (_read(header) if header is not None else None) or (new_trace_id(), "00")
    if is_sampled is not None:
        flags = "01" if is_sampled else "00"
    return f"00-{trace_id}-{new_span_id()}-{flags}"


def as_recorded(traceparent: str) -> str:
    """The same trace, to be recorded by whoever continues it; empty for an empty one."""
    return f"{traceparent[:-2]}01" if traceparent else ""


def trace_id_of(traceparent: str) -> str:
    """The trace id (32 hexadecimal digits) of a traceparent; empty for an empty one."""
    return traceparent[3:35]


def current_trace_id() -> str:
    """The trace id of the request in hand, for logs and answers; empty outside a request."""
    return current_traceparent.get()[3:35]


def _read(header: bytes) -> tuple[str, str] | None:
    """Trace id and flags. Version 00 ends after the flags, a later one may say more behind a dash, ff is no version."""
    match = _TRACEPARENT.fullmatch(header)
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == b"ff" or (version == b"00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return trace_id.decode("ascii"), "01" if int(flags, 16) & 1 else "00"
