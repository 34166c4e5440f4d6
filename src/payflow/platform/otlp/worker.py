"""A thread that sends what was gathered, so that the event loop never waits for a collector."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Worker:
    """Calls `work` every `pause_s` seconds, at once when woken, and a last time when it is stopped."""

    def __init__(self, name: str, *, pause_s: float, work: Callable[[], None]) -> None:
        self._pause_s = pause_s
        self._work = work
        self._is_wanted = threading.Event()
        self._is_ending = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Do not wait for the end of the pause."""
        self._is_wanted.set()

    def stop(self, *, within_s: float) -> None:
        """Send what is there and end. A collector that does not answer is waited for no longer than this."""
        self._is_ending = True
        self._is_wanted.set()
        self._thread.join(within_s)

    def _run(self) -> None:
        while not self._is_ending:
            self._is_wanted.wait(self._pause_s)
            self._is_wanted.clear()
            self._work()
