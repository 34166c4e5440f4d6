"""A circuit breaker per link: a service that does not answer is left alone for a while instead of being waited for."""

from __future__ import annotations

from typing import Final

FAILURES_TO_OPEN: Final = 5
OPEN_S_MIN: Final = 0.2
OPEN_S_MAX: Final = 5.0


class Breaker:
    """Opens after consecutive failures to reach the peer; then lets one call through at a time to try.

    Time is handed in (seconds on any monotonic clock), so that the rule is pure. The defaults are for services of ours,
    which are back soon; a vendor is given longer.
    """

    def __init__(self, *, open_s_min: float = OPEN_S_MIN, open_s_max: float = OPEN_S_MAX) -> None:
        self._failures = 0
        self._open_until = 0.0
        self._open_s_min = open_s_min
        self._open_s_max = open_s_max
        self._open_s = open_s_min

    @property
    def is_closed(self) -> bool:
        """Whether calls flow freely."""
        return self._failures < FAILURES_TO_OPEN

    def allows(self, now: float) -> bool:
        """Whether a call may be sent. While open, one trial is let through when the pause is over."""
        if self.is_closed:
            return True
        if now < self._open_until:
            return False
        self._open_until = now + self._open_s
        return True

    def succeeded(self) -> None:
        """The peer answered, whatever it said."""
        self._failures = 0
        self._open_s = self._open_s_min

    def failed(self, now: float) -> None:
        """The peer could not be reached or did not answer."""
        self._failures += 1
        if self._failures == FAILURES_TO_OPEN:
            self._open_until = now + self._open_s
        elif self._failures > FAILURES_TO_OPEN:
            self._open_s = min(self._open_s * 2, self._open_s_max)
            self._open_until = now + self._open_s
