"""More than the instance can do, by the clock: `python -m payflow_dev.bench.open_loader JOB RESULT`.

Payments go out at a fixed rate, each over a connection that is free, whatever became of the ones before: nobody waits
for an answer and nobody holds back after a refusal. The connections are there before: what is measured is too many
requests, not thousands of handshakes in one moment. When that is over, single payments one after another tell when the
instance is its old self again.
"""

from __future__ import annotations

import resource
import time
from collections import deque
from contextlib import suppress
from typing import Final

import msgspec

from payflow_dev.bench.job import Job, Load
from payflow_dev.bench.loader import CannotBegin, Connection, Loader, cpu_s, main

WATCHED_S: Final = 30.0
_IN_A_ROW: Final = 5
_TURN: Final = 64
_WAIT_S: Final = 0.001
_TICK_S: Final = 0.25
_AGAIN_S: Final = 0.05
_FILES_SPARE: Final = 64
# For the gateways to take all connections.
_CONNECTED_S: Final = 1.0


class OpenLoader(Loader):
    """Sends by the clock, then watches single payments until five in a row take their usual time."""

    def __init__(self, job: Job) -> None:
        _raise_file_limit(job)
        super().__init__(job)
        # The one that has waited longest goes first: a connection that never sends a request is closed by the gateway.
        self._free: deque[Connection] = deque()
        self._watch = Connection()
        self._watch_again_at = 0.0
        self._in_a_row = 0
        self._row_began_ns = 0
        self._sent = self._unsent = 0
        self._recovered_after_s: float | None = None

    def run(self) -> Load:
        """Offer, then watch. Prints the number of acknowledged payments now and then. Raises CannotBegin."""
        self._connect_all()
        cpu_before = cpu_s()
        self._began_ns = time.perf_counter_ns()
        self._ends_ns = self._began_ns + int(self._job.seconds * 1e9)
        next_tick = 0.0
        while not self._is_over():
            self._offer()
            for key, _ in self._selector.select(_WAIT_S):
                self._receive(key.data)
            now = time.monotonic()
            if now >= next_tick:
                next_tick = now + _TICK_S
                self._give_up_late_ones()
                print(len(self._latencies), flush=True)
        load = self._result(cpu_s() - cpu_before)
        return msgspec.structs.replace(
            load, sent=self._sent, unsent=self._unsent, recovered_after_s=self._recovered_after_s
        )

    def _connect_all(self) -> None:
        """With fewer connections than the step is about, it would be another one: what is too much depends on them."""
        for made, connection in enumerate(self._connections):
            error = self._connect(connection)
            if error is not None:
                raise CannotBegin(_why_too_few(made, len(self._connections), error))
        self._free.extend(self._connections)
        time.sleep(_CONNECTED_S)

    def _is_over(self) -> bool:
        after_s = (time.perf_counter_ns() - self._ends_ns) / 1e9
        if after_s < 0 or self._under_way:
            return False
        return self._recovered_after_s is not None or after_s >= WATCHED_S

    def _offer(self) -> None:
        """Send what is due by now; answers are read at least every few payments."""
        now_ns = time.perf_counter_ns()
        if now_ns >= self._ends_ns:
            self._look(now_ns)
            return
        due = int((now_ns - self._began_ns) / 1e9 * self._job.offered_per_s)
        for _ in range(min(_TURN, due - self._sent - self._unsent)):
            if not self._free:
                self._unsent = due - self._sent
                return
            connection = self._free.popleft()
            if connection.sock is None:
                self._connect(connection)
            if connection.sock is None:
                self._errors["no connection"] += 1
                self._free.append(connection)
                self._unsent += 1
                continue
            self._sent += 1
            self._send(connection)

    def _look(self, now_ns: int) -> None:
        """Keep one single payment under way until they take their usual time again."""
        watch = self._watch
        is_watching = self._recovered_after_s is None and now_ns - self._ends_ns < WATCHED_S * 1e9
        if not is_watching or watch.number >= 0 or time.monotonic() < self._watch_again_at:
            return
        if watch.sock is None:
            self._connect(watch)
            if watch.sock is None:
                self._watch_again_at = time.monotonic() + _AGAIN_S
                return
        self._send(watch)

    def _next(self, connection: Connection) -> None:
        if connection is not self._watch:
            self._free.append(connection)
            return
        now_ns = time.perf_counter_ns()
        if now_ns - connection.sent_ns > self._job.normal_ms * 1e6:
            self._in_a_row = 0
            return
        if not self._in_a_row:
            self._row_began_ns = now_ns
        self._in_a_row += 1
        if self._in_a_row == _IN_A_ROW:
            self._recovered_after_s = (self._row_began_ns - self._ends_ns) / 1e9

    def _pause(self, connection: Connection) -> None:
        if connection is self._watch:
            self._in_a_row = 0
            self._watch_again_at = time.monotonic() + _AGAIN_S
        else:
            self._free.append(connection)

    def _give_up_late_ones(self) -> None:
        super()._give_up_late_ones()
        self._give_up_if_late(self._watch)


def _raise_file_limit(job: Job) -> None:
    """Let this process have a file for each connection, as far as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _files_wanted(job.connections)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < limit:
        with suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _files_wanted(connections: int) -> int:
    return connections + _FILES_SPARE


def _why_too_few(made: int, wanted: int, error: OSError) -> str:
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    least = _files_wanted(wanted)
    return (
        f"{made:,} of {wanted:,} connections could be made: {error.strerror or error}. Look whether the gateways run,"
        f" at how many files this process (ulimit -n: {files:,} here, at least {least:,} wanted) and the gateways may"
        " have, and at how many connections may wait to be taken (net.core.somaxconn)."
    )


if __name__ == "__main__":
    main(OpenLoader)
