"""So many a second and no more: which new traces are recorded."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class RateLimiter:
    """Lets `per_second` through, up to as many at once after a pause (at least one); 0 lets nobody through.

    Saying no, which is what it nearly always does under load, is one comparison.
    """

    def __init__(self, per_second: float, *, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._step_s = 1 / per_second if per_second > 0 else 0.0
        # Earned while nobody asked: a second's worth.
        self._burst_s = max(0.0, 1.0 - self._step_s)
        self._free_at = clock() - self._burst_s

    def take(self) -> bool:
        """Whether there is room for one more now."""
        now = self._clock()
        if now < self._free_at or not self._step_s:
            return False
        self._free_at = max(self._free_at, now - self._burst_s) + self._step_s
        return True
