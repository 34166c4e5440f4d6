"""Identifiers: of things that are stored, which sort by the time of their making, and of traces and their spans.

Their random bits are the operating system's, asked for a few hundred at a time: one call for each identifier was five
percent of what a payment costs a process.
"""

from __future__ import annotations

import os
import time
from typing import Final
from uuid import UUID

_AT_ONCE: Final = 256


class _RandomBytes:
    """Random bytes in pieces of one length, each given out once: to one thread only, and never again after a fork."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._pieces: list[bytes] = []
        os.register_at_fork(after_in_child=self._pieces.clear)

    def take(self) -> bytes:
        """A fresh piece."""
        while True:
            try:
                # One step of the interpreter: no two threads get the same piece.
                return self._pieces.pop()
            except IndexError:
                random = os.urandom(self._length * _AT_ONCE)
                self._pieces.extend(random[at : at + self._length] for at in range(0, len(random), self._length))


_of_uuids: Final = _RandomBytes(8)
_of_traces: Final = _RandomBytes(16)
_of_spans: Final = _RandomBytes(8)


class UuidV7:
    """UUIDv7 (RFC 9562): 48 bits of milliseconds and 12 of their fraction (6.2, method 3), so that index pages fill in
    order and what one process makes a microsecond later sorts behind; then 62 random bits."""

    def new(self) -> UUID:
        """A fresh UUIDv7."""
        milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
        random_bits = int.from_bytes(_of_uuids.take(), "big")
        value = milliseconds << 80
        value |= 0x7 << 76
        value |= (nanoseconds * 4096 // 1_000_000) << 64
        value |= 0b10 << 62
        value |= random_bits & 0x3FFF_FFFF_FFFF_FFFF
        return UUID(int=value)


def new_trace_id() -> str:
    """A fresh trace id of W3C Trace Context: 32 hexadecimal digits."""
    return _of_traces.take().hex()


def new_span_id() -> str:
    """A fresh span id of W3C Trace Context: 16 hexadecimal digits."""
    return _of_spans.take().hex()
