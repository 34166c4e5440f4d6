"""Refusing at the connection while a process is full, so cheaply that the cores are left to those who are inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Final

import structlog
from prometheus_client import Counter
from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from payflow.kernel.errors import Overloaded
from payflow.platform.http.glance import Glancer
from payflow.platform.http.headers import PUBLIC
from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.problem import problem_response
from payflow.platform.http.trace import continue_trace, trace_id_of

log = structlog.get_logger("payflow.http")

TURNED_AWAY: Final = Counter(
    "payflow_http_turned_away_total", "Requests refused at the connection: too many under way."
)
# A request whose body is longer, or of unknown length, goes the usual way and is refused there.
BODY_MAX_BYTES: Final = 64 * 1024
_TOLD_EVERY_S: Final = 1.0
_TEMPLATES_MAX: Final = 16
_NO_TRACE: Final = "0" * 32

Fields = Sequence[tuple[bytes, bytes]]


class TurnAway:
    """The 503 for requests that find a full process.

    `is_full` says whether one more would be refused anyway, behind so many that are coming: what one turn of the event
    loop lets in begins in the next, and counts from the moment in which it is let in. Targets that begin with one of
    `lets_in` are never turned away, so that a full process still says that it lives.
    """

    def __init__(self, is_full: Callable[[int], bool], *, lets_in: tuple[bytes, ...]) -> None:
        self._is_full = is_full
        self._coming = 0
        self._lets_in = lets_in
        self._glancer = Glancer()
        self._fields: Fields | None = None
        self._templates: dict[bytes, tuple[bytes, bytes, bytes]] = {}
        self._untold = 0
        self._told_at = 0.0

    @property
    def is_full(self) -> bool:
        """Whether one more request would be refused."""
        return self._is_full(self._coming)

    def expect(self, path: bytes) -> Callable[[], None] | None:
        """Count a request that is let in and will take a place, until what is returned is called: when it begins."""
        if path.startswith(self._lets_in):
            return None
        self._coming += 1
        return self._has_begun

    def _has_begun(self) -> None:
        self._coming -= 1

    def refuses(self, target: bytes, fields: Fields) -> bool:
        """Whether to answer 503 as soon as the request is all there. `fields`: its header, names in small letters."""
        return self.is_full and not target.startswith(self._lets_in) and _is_plain(fields)

    def answer_at_a_glance(self, data: bytes, limits: ConnectionLimits, *, common: Fields) -> bytes | None:
        """The answer to the request that these bytes are; None where they are anything but one that is plain and whole,
        and refused. Two thirds of what the usual way costs, for who sends a request in one piece."""
        seen = self._glancer.read(data, limits)
        if seen is None or seen.target.startswith(self._lets_in):
            return None
        return self.answer(seen.target, seen.traceparent, common=common, keep_alive=True)

    def answer(self, target: bytes, traceparent: bytes | None, *, common: Fields, keep_alive: bool) -> bytes:
        """The whole answer as it goes out. `common`: the server's own fields of every answer, Date among them."""
        TURNED_AWAY.inc()
        self._tell()
        trace = continue_trace(traceparent)
        before, between, after = self._template(target.partition(b"?")[0][:256], common)
        close = b"" if keep_alive else b"connection: close\r\n"
        trace_id = trace_id_of(trace).encode("ascii")
        return b"".join((before, close, b"traceresponse: ", trace.encode("ascii"), between, trace_id, after))

    def _template(self, path: bytes, common: Fields) -> tuple[bytes, bytes, bytes]:
        """The parts of the answer around what differs between two requests for one path in one second."""
        if common is not self._fields or len(self._templates) >= _TEMPLATES_MAX:
            self._fields, self._templates = common, {}
        known = self._templates.get(path)
        if known is None:
            answer = problem_response(Overloaded(), instance=path.decode("ascii", "replace"), trace_id=_NO_TRACE)
            head = [STATUS_LINE[answer.status]]
            head += [b"%s: %s\r\n" % field for field in (*common, *answer.headers, *PUBLIC)]
            begin, _, end = answer.body.rpartition(_NO_TRACE.encode("ascii"))
            known = self._templates[path] = (b"".join(head), b"\r\n\r\n" + begin, end)
        return known

    def _tell(self) -> None:
        """One line a second at most: a flood of refused requests fills no disk."""
        self._untold += 1
        now = time.monotonic()
        if now - self._told_at >= _TOLD_EVERY_S:
            log.warning("requests_turned_away", count=self._untold)
            self._untold, self._told_at = 0, now


def _is_plain(fields: Fields) -> bool:
    """Whether the body is known to be short and the client waits for nothing before it sends it."""
    length = 0
    for name, value in fields:
        if name == b"content-length":
            length = int(value)
        elif name in (b"transfer-encoding", b"expect", b"upgrade"):
            return False
    return length <= BODY_MAX_BYTES
