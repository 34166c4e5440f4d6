"""When a coalescer sends its next call: at once when the link is idle, with company when it is busy."""

from __future__ import annotations

from typing import Final

# After a call, those who were answered are waited for while they keep coming (GAP_S), for this fraction of a call's
# usual time, and never longer than that.
RETURN_WINDOW: Final = 0.8
RETURN_WINDOW_MAX_S: Final = 0.06
GAP_S: Final = 0.005
# Waiting pays where most of those who were answered ask again; the last stragglers are not waited for.
RETURNING_MIN: Final = 0.6
COMPANY: Final = 0.9
# A further call beside one under way is there for the case that the first one is stuck: so many times its usual time.
PATIENCE_BUSY: Final = 4.0
PATIENCE_BUSY_MAX_S: Final = 0.25
# Below so many asks a call there is no company to wait for.
LONELY: Final = 1.5
# So many asks fill a call well enough to go beside another: more would save little, and leave cores idle.
ENOUGH: Final = 112
LEARNING: Final = 0.3


class Pace:
    """Learns from the calls of one link how long the next one should wait for company.

    After a call of thirty asks about thirty clients ask again, but not in the same microsecond. Sending those who came
    meanwhile without them leaves two groups that take turns for ever after, each in a call of its own at a call's whole
    cost. So a call waits a moment for those who were just answered, if they usually come back: clients that do not wait
    for their answers before they ask again do not, and then nobody waits.
    """

    def __init__(self) -> None:
        self._asks = 1.0
        self._seconds = 0.0
        self._returning = 1.0
        self._answered = 0
        self._arrived = 0
        self._expected = 0.0
        self._window_ends_at = self._ended_at = self._last = 0.0

    def arrived(self, now: float) -> None:
        """Somebody asks."""
        if now < self._window_ends_at:
            self._arrived += 1
        self._last = now

    def wait_s(self, *, now: float, waiting: int, oldest: float, is_busy: bool) -> float:
        """Seconds still to wait, 0 or less to send now.

        `waiting` asks, the first of which came at `oldest`; `is_busy`: a call is under way. Instants are those of the
        event loop's clock.
        """
        if is_busy:
            if self._asks < LONELY or waiting >= ENOUGH:
                return 0.0
            return oldest + min(self._seconds * PATIENCE_BUSY, PATIENCE_BUSY_MAX_S) - now
        if waiting >= min(self._expected, ENOUGH):
            return 0.0
        return min(self._window_ends_at, max(self._last, self._ended_at) + GAP_S) - now

    def ended(self, *, now: float, sent_at: float, asks: int, waiting: int) -> None:
        """A call that carried `asks` has ended while `waiting` more were there."""
        if self._answered:
            self._returning += (min(1.0, self._arrived / self._answered) - self._returning) * LEARNING
        self._asks += (asks - self._asks) * LEARNING
        self._seconds += (now - sent_at - self._seconds) * LEARNING
        self._answered, self._arrived = asks, 0
        self._ended_at = now
        self._expected = waiting + asks * COMPANY if self._returning >= RETURNING_MIN else 0.0
        self._window_ends_at = now + min(self._seconds * RETURN_WINDOW, RETURN_WINDOW_MAX_S)
