"""How long whoever reads the event log rests after a reading, so that what comes right behind is read together."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

REST_MIN_S: Final = 0.002
REST_MAX_S: Final = 0.1
# With this much rest for each event a second, it is the longest from 200 events a second on.
_S_FOR_EACH_PER_S: Final = 0.0005
# A reading costs something, whatever it finds: it counts as so many events. A reader that is never without work, and
# finds next to nothing each time, then reads some twenty times a second.
_EVENTS_AT_LEAST: Final = 4
# From some 1,500 events a second on, one who may rest longer then does so, in proportion to their number.
_S_FOR_EACH_PER_S_WHEN_BUSY: Final = 0.00005
# Over how long the rate is watched, roughly.
_WATCHED_S: Final = 1.0


class Rests:
    """Rests by the rate of events in the last second: none to speak of for a lone event, but `shortest_s`; long ones
    under load, up to `longest_s`; up to `busiest_s` while there are thousands a second. `counts_as`: how many events a
    reading costs as much as, whatever it finds."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        *,
        shortest_s: float = REST_MIN_S,
        longest_s: float = REST_MAX_S,
        busiest_s: float = 0.0,
        counts_as: int = _EVENTS_AT_LEAST,
    ) -> None:
        self._clock = clock
        self._shortest_s = shortest_s
        self._longest_s = longest_s
        self._busiest_s = busiest_s
        self._counts_as = counts_as
        self._read_at = clock()
        # Events of the last second, older ones faded out.
        self._recent = 0.0

    def after(self, events: int) -> float:
        """How many seconds to rest after so many events were read."""
        now = self._clock()
        faded = self._faded(now)
        # No more than makes the longest rest, so that a burst is forgotten within seconds.
        self._recent = min(faded + max(events, self._counts_as), REST_MAX_S * _WATCHED_S / _S_FOR_EACH_PER_S)
        per_s = events / max(now - self._read_at, REST_MIN_S)
        self._read_at = now
        return max(self._rest(self._recent), min(per_s * _S_FOR_EACH_PER_S_WHEN_BUSY, self._busiest_s))

    def now(self) -> float:
        """How many seconds to rest at the rate of this moment."""
        return self._rest(self._faded(self._clock()))

    def _faded(self, now: float) -> float:
        return self._recent * math.exp((self._read_at - now) / _WATCHED_S)

    def _rest(self, recent: float) -> float:
        return min(max(recent / _WATCHED_S * _S_FOR_EACH_PER_S, self._shortest_s), self._longest_s)
