"""The bench's own loader: `python -m payflow_dev.bench.loader JOB RESULT`.

One process, one loop over plain sockets, one request outstanding per connection. It renders nothing that could be
rendered before, so that on a small machine the load generator takes little of what it measures.
"""

from __future__ import annotations

import gc
import resource
import selectors
import signal
import socket
import sys
import time
from array import array
from collections import Counter
from pathlib import Path
from typing import Final

from payflow_dev.bench.job import Job, Load, read_file, write_file
from payflow_dev.bench.stats import latencies_of
from payflow_dev.bench.wire import AnswerReader, Outcome, is_early_refusal, transaction_id, understand

ANSWER_WITHIN_S: Final = 20.0
# A refused connection waits before its next payment, or a closed loop would spend itself on refusals.
_PAUSE_AFTER_ERROR_S: Final = 0.05
_TICK_S: Final = 0.25
_CHUNK: Final = 65536
_LOST: Final = "no answer: connection lost"
_LATE: Final = f"no answer within {ANSWER_WITHIN_S:.0f} s"
_UNREACHABLE: Final = "no connection"


class CannotBegin(Exception):
    """A step for which there is not what it needs; the message says what to look at."""


class Connection:
    """One connection and the payment that is under way on it (`number`; -1 when there is none)."""

    __slots__ = ("number", "reader", "resume_at", "sent_ns", "sock")

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.reader = AnswerReader()
        self.number = -1
        self.sent_ns = 0
        self.resume_at = 0.0


class Loader:
    """Keeps every connection busy for the job's time, then waits for the last answers."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._selector = selectors.DefaultSelector()
        self._connections = [Connection() for _ in range(job.connections)]
        self._paused: list[Connection] = []
        self._outcomes = bytearray()
        self._latencies = array("q")
        self._errors: Counter[str] = Counter()
        self._refused = array("q")
        self._pending = 0
        self._under_way = 0
        self._began_ns = 0
        self._ends_ns = 0

    def run(self) -> Load:
        """Drive the whole step. Prints a line `acknowledged-so-far` now and then for whoever shows progress."""
        for connection in self._connections:
            self._connect(connection)
        cpu_before = cpu_s()
        self._began_ns = time.perf_counter_ns()
        self._ends_ns = self._began_ns + int(self._job.seconds * 1e9)
        for connection in self._connections:
            self._pay(connection)
        next_tick = 0.0
        while self._under_way or (self._paused and time.perf_counter_ns() < self._ends_ns):
            for key, _ in self._selector.select(_TICK_S if not self._paused else _PAUSE_AFTER_ERROR_S):
                self._receive(key.data)
            now = time.monotonic()
            if self._paused:
                self._resume(now)
            if now >= next_tick:
                next_tick = now + _TICK_S
                self._give_up_late_ones()
                print(len(self._latencies), flush=True)
        return self._result(cpu_s() - cpu_before)

    def _connect(self, connection: Connection) -> OSError | None:
        """Open a connection; why it could not be, where it has no socket then."""
        connection.reader = AnswerReader()
        try:
            sock = socket.create_connection((self._job.host, self._job.port), timeout=2)
        except OSError as error:
            connection.sock = None
            return error
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection.sock = sock
        self._selector.register(sock, selectors.EVENT_READ, connection)
        return None

    def _pay(self, connection: Connection) -> None:
        """Send the next payment on this connection, unless the time is over."""
        if time.perf_counter_ns() >= self._ends_ns:
            return
        if connection.sock is None:
            self._connect(connection)
        if connection.sock is None:
            self._errors[_UNREACHABLE] += 1
            self._pause(connection)
            return
        self._send(connection)

    def _send(self, connection: Connection) -> None:
        job, sock = self._job, connection.sock
        assert sock is not None
        number = job.first + len(self._outcomes)
        self._outcomes.append(Outcome.UNKNOWN)
        template = job.templates[number % len(job.templates)]
        name = transaction_id(run_id=job.run_id, number=number).encode("ascii")
        request = job.heads[template.head] + name + template.between + name + template.after
        connection.number, connection.sent_ns = number, time.perf_counter_ns()
        self._under_way += 1
        try:
            # One small request on a connection without another one under way always fits into the socket's buffer.
            sock.sendall(request)
        except OSError:
            self._lose(connection, _LOST)

    def _receive(self, connection: Connection) -> None:
        sock = connection.sock
        if sock is None:
            return
        try:
            data = sock.recv(_CHUNK)
            is_complete = connection.reader.feed(data) if data else False
        except BlockingIOError:
            return
        except (OSError, ValueError):
            data, is_complete = b"", False
        if not data:
            self._lose(connection, _LOST)
        elif is_complete:
            self._finish(connection, time.perf_counter_ns())

    def _finish(self, connection: Connection, now_ns: int) -> None:
        reader = connection.reader
        outcome, label = understand(reader.status, reader.body)
        self._outcomes[connection.number - self._job.first] = outcome
        self._under_way -= 1
        connection.number = -1
        if not reader.keeps_alive:
            self._close(connection)
        if label:
            self._errors[label] += 1
            if is_early_refusal(reader.status):
                self._refused.append(now_ns - connection.sent_ns)
            self._pause(connection)
            return
        if now_ns <= self._ends_ns:
            self._latencies.append(now_ns - connection.sent_ns)
            self._pending += outcome is Outcome.PENDING
        self._next(connection)

    def _next(self, connection: Connection) -> None:
        """A payment was acknowledged: what comes next on its connection."""
        self._pay(connection)

    def _lose(self, connection: Connection, label: str) -> None:
        """Give a connection up. The payment on it, if any, stays unknown."""
        self._close(connection)
        if connection.number >= 0:
            self._errors[label] += 1
            self._under_way -= 1
            connection.number = -1
            self._pause(connection)

    def _close(self, connection: Connection) -> None:
        if connection.sock is not None:
            self._selector.unregister(connection.sock)
            connection.sock.close()
            connection.sock = None

    def _pause(self, connection: Connection) -> None:
        connection.resume_at = time.monotonic() + _PAUSE_AFTER_ERROR_S
        self._paused.append(connection)

    def _resume(self, now: float) -> None:
        due = [connection for connection in self._paused if connection.resume_at <= now]
        self._paused = [connection for connection in self._paused if connection.resume_at > now]
        for connection in due:
            self._pay(connection)

    def _give_up_late_ones(self) -> None:
        for connection in self._connections:
            self._give_up_if_late(connection)

    def _give_up_if_late(self, connection: Connection) -> None:
        if connection.number >= 0 and connection.sent_ns < time.perf_counter_ns() - int(ANSWER_WITHIN_S * 1e9):
            self._lose(connection, _LATE)

    def _result(self, cpu_s: float) -> Load:
        for connection in self._connections:
            self._close(connection)
        return Load(
            outcomes=bytes(self._outcomes),
            acknowledged=len(self._latencies),
            pending=self._pending,
            window_s=self._job.seconds,
            latencies=latencies_of(self._latencies),
            errors=dict(self._errors),
            cpu_s=cpu_s,
            refused=len(self._refused),
            refused_latencies=latencies_of(self._refused),
        )


def cpu_s() -> float:
    """CPU seconds of this process up to now."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(loader: type[Loader] = Loader) -> None:
    """Read the job, run it, write the result."""
    # Ctrl-C is the parent's to handle; here it only ends the process, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    job = read_file(Path(sys.argv[1]), Job)
    # Nothing here makes cycles that matter within a step, and a collection would look like a slow payment.
    gc.disable()
    try:
        load = loader(job).run()
    except CannotBegin as error:
        sys.exit(str(error))
    write_file(Path(sys.argv[2]), load)


if __name__ == "__main__":
    main()
