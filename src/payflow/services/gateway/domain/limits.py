"""Counting requests over a sliding window with two numbers per counter.

The count of the last whole window is weighted with the part of it that the sliding window still covers; the error is
small, and memory does not grow with the limit (a log of requests would keep an entry for each).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

import msgspec

COUNTERS_MAX: Final = 50_000


class Limit(msgspec.Struct, frozen=True):
    """So many requests in so many seconds. `name` is shown in the RateLimit header fields."""

    name: str
    count: int
    window_s: int


class Standing(msgspec.Struct, frozen=True):
    """How a counter stands after a request: what is left, when a full window is free again, and when to come back.

    `reset_s` and `retry_after_s` are whole seconds from now; `retry_after_s` is 0 where the request was allowed.
    """

    is_allowed: bool
    remaining: int
    reset_s: int
    retry_after_s: int


class _Counter:
    __slots__ = ("current", "previous", "window")

    def __init__(self) -> None:
        self.window, self.current, self.previous = -1, 0, 0


class SlidingCounters:
    """Counters in this process's memory, at most `counters_max` of them; those used longest ago are forgotten first.

    Refused requests are not counted. Time is handed in, in seconds.
    """

    def __init__(self, counters_max: int = COUNTERS_MAX) -> None:
        self._counters: OrderedDict[str, _Counter] = OrderedDict()
        self._counters_max = counters_max

    def __len__(self) -> int:
        return len(self._counters)

    def take(self, *, key: str, limit: Limit, now: float) -> Standing:
        """Count one request on `key`, if the limit allows it."""
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter()
            if len(self._counters) > self._counters_max:
                self._counters.popitem(last=False)
        self._counters.move_to_end(key)
        window, elapsed = divmod(now, limit.window_s)
        if counter.window != window:
            counter.previous = counter.current if counter.window == window - 1 else 0
            counter.window, counter.current = int(window), 0
        used = counter.current + counter.previous * (limit.window_s - elapsed) / limit.window_s
        is_allowed = used + 1 <= limit.count
        if is_allowed:
            counter.current += 1
            used += 1
        return standing_of(
            limit=limit,
            is_allowed=is_allowed,
            used=used,
            current=counter.current,
            previous=counter.previous,
            elapsed_s=elapsed,
        )


def standing_of(
    *, limit: Limit, is_allowed: bool, used: float, current: int, previous: int, elapsed_s: float
) -> Standing:
    """A counter's standing from its two numbers; `used` is the weighted count, this request included if allowed."""
    window_s = limit.window_s
    # What is counted now leaves the sliding window at the end of the next window, or of this one if nothing is.
    reset_s = 2 * window_s - elapsed_s if current else window_s - elapsed_s
    retry_s = 0.0 if is_allowed else _wait_s(limit, current, previous, elapsed_s)
    return Standing(
        is_allowed=is_allowed,
        remaining=max(0, math.floor(limit.count - used)),
        reset_s=math.ceil(reset_s),
        retry_after_s=math.ceil(retry_s),
    )


def _wait_s(limit: Limit, current: int, previous: int, elapsed_s: float) -> float:
    """Seconds until one more request is allowed, if none comes meanwhile."""
    room = limit.count - 1 - current
    if room >= 0 and previous:
        return max(0.0, limit.window_s * (1 - room / previous) - elapsed_s)
    # Only in the next window, where the current count is the previous one.
    return limit.window_s - elapsed_s + limit.window_s * max(0.0, 1 - (limit.count - 1) / max(current, 1))
