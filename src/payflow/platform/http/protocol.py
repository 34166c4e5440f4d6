"""One HTTP/1.1 connection, with the bounds and the strictness that uvicorn's httptools protocol leaves to others.

Parsed by llhttp, which refuses most ambiguous framing itself. What it lets through is refused here: a missing or
doubled Host, transfer codings other than chunked, HTTP/0.9 and 2.0 request lines, CONNECT, hidden characters in the
path, trailers posing as headers, and heads and bodies without end in size or time.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import MutableMapping
from typing import Any, Final, cast

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from payflow.kernel.errors import Overloaded, PayflowError
from payflow.platform.http.answer import WholeAnswers
from payflow.platform.http.asgi import ASGIApp, Scope
from payflow.platform.http.draining import Draining
from payflow.platform.http.errors import HeadersTooLarge, MalformedHead, PayloadTooLarge, RequestTimedOut
from payflow.platform.http.headers import PUBLIC
from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.problem import problem_response
from payflow.platform.http.target import HOST, PLAIN_TARGET, check_unusual_target
from payflow.platform.http.trace import continue_trace, trace_id_of
from payflow.platform.http.turn_away import TurnAway

_IDLE: Final = 0  # between two messages
_HEAD: Final = 1  # inside a head
_BODY: Final = 2  # inside a body

_FRAMING: Final = "The request is not valid HTTP/1.1."


class _Allowance:
    """What the application allows the present message beyond the connection's limits, and what it knows it by."""

    __slots__ = ("body_bytes_max", "names")

    def __init__(self) -> None:
        self.body_bytes_max = 0
        self.names: dict[str, str] = {}


_ALLOWANCE: Final = "payflow.allowance"


def allow_large_body(scope: MutableMapping[str, Any], *, bytes_max: int) -> None:
    """Called by a route that reads a long body piece by piece, once it knows who is sending: so many bytes may come,
    for as long as they come at a pace. How long that may be in all is the route's to bound."""
    allowance = scope.get(_ALLOWANCE)
    if allowance is not None:
        # Chunk sizes and the like are on the wire, too.
        allowance.body_bytes_max = bytes_max * 2


def name_in_refusals(scope: MutableMapping[str, Any], **names: str) -> None:
    """Called by a route once it knows what a long body belongs to: where the connection refuses the rest of the body,
    these are members of the problem that it answers."""
    allowance = scope.get(_ALLOWANCE)
    if allowance is not None:
        allowance.names.update(names)


class EdgeConfig(Config):
    """uvicorn's configuration, the limits of a connection, and what is refused at once while the process is full."""

    limits: ConnectionLimits = ConnectionLimits()
    turn_away: TurnAway | None = None
    draining: Draining


class EdgeProtocol(HttpToolsProtocol):
    """A connection whose every wait and every buffer has an end. `check_deadline` is called twice a second: one round
    over the connections is cheaper than a timer set and cancelled for each request."""

    def __init__(
        self,
        config: EdgeConfig,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.limits = config.limits
        self._turn_away = config.turn_away
        self._is_turned_away = False  # the present request, which the application never hears of
        self._draining = config.draining
        self._phase = _IDLE
        self._deadline: float | None = None  # None: to be set from the phase
        self._write_deadline = math.inf
        self._fed = 0  # bytes of the present head or body that earlier reads brought
        self._reading = 0  # bytes of the present read
        self._paced = 0  # bytes of the present body that have put its deadline off
        self._allowance = _Allowance()
        self._has_completed = False  # whether the present read ended a message
        self._is_ending = False
        self._running: RequestResponseCycle | None = None
        self._wire: asyncio.Transport = None  # type: ignore[assignment]

    # The connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wire = transport
        self.transport = _GentleTransport(self, transport)
        # The first head must come soon; only a connection that has carried a request may idle for long.
        self._deadline = self.loop.time() + (self.limits.farewell_s if self._draining.is_on else self.limits.head_s)
        if len(self.connections) > self.limits.connections_max:
            self._refuse(Overloaded("Too many connections are open."))

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._deadline = self._write_deadline = math.inf
        self.pipeline.clear()
        super().connection_lost(exc)
        # A connection, its transport and its last request hold each other. Who is in a ring is found by the collector
        # alone, which comes seldom: clients that come and go would take megabytes until then.
        self.transport, self._running = self._wire, None
        self.cycle = None  # type: ignore[assignment]  # None before the first request, too, which its type does not say

    def data_received(self, data: bytes) -> None:
        if self._is_ending:
            return
        if self._phase == _IDLE and self._turn_away is not None and self._turn_away.is_full:
            answer = self._refused_at_a_glance(self._turn_away, data)
            if answer is not None:
                self._wire.write(answer)
                self._deadline = self.loop.time() + self.limits.idle_s
                return
        phase_before, fed_before = self._phase, self._fed
        self._reading = len(data)
        self._has_completed = False
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._is_ending = True  # answered as plain HTTP/1.1, then closed; what follows is of no protocol we speak
            self._deadline = math.inf
            return
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause if isinstance(cause, PayflowError) else MalformedHead(_FRAMING))
            return
        if self._phase != _IDLE:
            self._count(phase_before, fed_before)
            if self._allowance.body_bytes_max and self._phase == _BODY:
                self._keep_pace()
        if self._deadline is None:
            self._set_deadline()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_deadline = self.loop.time() + self.limits.write_s

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_deadline = math.inf

    def shutdown(self) -> None:
        """The server drains: what is under way is finished, and its connection told to close behind it."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        elif not self._draining.is_gentle or self._is_ending:
            self.transport.close()
        else:
            farewell_at = self.loop.time() + self.limits.farewell_s
            self._deadline = farewell_at if self._deadline is None else min(self._deadline, farewell_at)

    def check_deadline(self, now: float) -> None:
        """End the connection if it is over time: with 408 where a request is half there, silently where none is."""
        if now >= self._write_deadline:
            self._wire.abort()
        elif self._deadline is None or now < self._deadline:
            return
        elif self._is_ending:
            self._wire.abort()
        elif self.flow.read_paused and self._phase != _IDLE:
            self._deadline = None  # we are the ones who do not read
            self._set_deadline()
        elif self._phase == _IDLE:
            self.transport.close()
        else:
            what = "head" if self._phase == _HEAD else "body"
            self._refuse(RequestTimedOut(f"The request's {what} did not arrive in time."))

    def close_gently(self) -> None:
        """Close once everything is sent. Where the client is still sending, the rest is read and thrown away for a
        moment: closing over unread data makes the kernel send a reset, which can destroy the answer on its way."""
        is_sending = self._phase != _IDLE or self._is_ending
        self._is_ending = True
        self._deadline = self.loop.time() + self.limits.linger_s
        if is_sending and not self._wire.is_closing() and self._wire.can_write_eof():
            self.flow.resume_reading()
            self._wire.write_eof()
        else:
            self._wire.close()

    def cut(self) -> None:
        """End the connection now, whatever is under way on it."""
        self._wire.abort()

    # The parser's callbacks

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._allowance = _Allowance()
        cast(Scope, self.scope)[_ALLOWANCE] = self._allowance
        self._draining.tell(self.scope)
        self._phase, self._deadline, self._fed, self._paced = _HEAD, None, 0, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase == _HEAD:  # a trailer must not become a header after the checks
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._check_head()
        self._phase, self._deadline, self._fed = _BODY, None, 0
        if self._is_to_be_turned_away():
            self._is_turned_away = True
            return
        super().on_headers_complete()
        if self.parser.should_upgrade() or self._draining.is_on:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if not self._is_turned_away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._phase, self._deadline, self._has_completed = _IDLE, None, True
        if self._is_turned_away:
            self._say_no()
        else:
            super().on_message_complete()

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        elif self._phase == _IDLE and not self._is_ending:
            self._deadline = self.loop.time() + self.limits.idle_s

    def _is_to_be_turned_away(self) -> bool:
        """Whether the request is refused at the connection: by an answer with a body, the next on the wire."""
        if self._turn_away is None or self._has_work() or self.parser.get_method() == b"HEAD":
            return False
        return self._turn_away.refuses(self.url, self.headers)

    def _has_work(self) -> bool:
        """Whether an earlier request of this connection is still being answered."""
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    def _refused_at_a_glance(self, turn_away: TurnAway, data: bytes) -> bytes | None:
        """The answer to a request that is all there and is refused whatever it says; None: read it the usual way."""
        if self._draining.is_on or self.transport.is_closing() or self._has_work() or self.flow.write_paused:
            return None
        return turn_away.answer_at_a_glance(data, self.limits, common=self.server_state.default_headers)

    def _say_no(self) -> None:
        """Answer a request that was turned away; the connection may send the next one."""
        self._is_turned_away = False
        if self._turn_away is None or self.transport.is_closing():
            return
        is_persistent = self.parser.get_http_version() != "1.0" and bool(self.parser.should_keep_alive())
        # Who sends on and does not read is not answered for ever: nothing here waits for room in the buffer.
        keep_alive = is_persistent and not self._draining.is_on and not self.flow.write_paused
        common = self.server_state.default_headers
        traceparent = next((value for name, value in self.headers if name == b"traceparent"), None)
        self._wire.write(self._turn_away.answer(self.url, traceparent, common=common, keep_alive=keep_alive))
        # Given back at once: kept until the next request, those of thousands of connections would leave no cache warm,
        # and be looked through for cycles again and again.
        self.url, self.headers = b"", []
        cast(Scope, self.scope).clear()
        self._deadline = self.loop.time() + self.limits.idle_s
        if not keep_alive:
            self.transport.close()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        on_begin = None if self._turn_away is None else self._turn_away.expect(cast(Scope, cycle.scope)["raw_path"])
        whole = WholeAnswers(cast(ASGIApp, app), cycle, on_begin=on_begin)
        super()._start_asgi_task(cycle, cast(ASGI3Application, whole))

    # The checks

    def _check_head(self) -> None:
        """Raises the PayflowError that the head is refused with."""
        if len(self.headers) > self.limits.header_fields_max:
            raise HeadersTooLarge("There are too many header fields.")
        if self._fed + self._reading > self.limits.head_bytes_max:
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > self.limits.head_bytes_max:
                raise HeadersTooLarge
        version = self.parser.get_http_version()
        if version not in ("1.1", "1.0"):
            raise MalformedHead("Send HTTP/1.1.")
        hosts: list[bytes] = []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
                raise MalformedHead("The only transfer coding is chunked, with HTTP/1.1.")
        if len(hosts) != 1 and (hosts or version == "1.1"):
            raise MalformedHead("Send exactly one Host header.")
        if hosts and not HOST.fullmatch(hosts[0]):
            raise MalformedHead("The Host header is not a host name.")
        if not PLAIN_TARGET.fullmatch(self.url) or len(self.url) > self.limits.target_bytes_max:
            check_unusual_target(self.url, hosts, self.limits.target_bytes_max)

    def _count(self, phase_before: int, fed_before: int) -> None:
        """Count the bytes of a head or body that this read did not finish; refuse the connection beyond the limit.

        A read that ended one message and began the next is not counted for the next: where it began is not known.
        """
        is_same = self._phase == phase_before and not self._has_completed
        if is_same:
            self._fed = fed_before + self._reading
        elif not self._has_completed and phase_before == _IDLE and self._phase == _HEAD:
            self._fed = self._reading
        if self._phase == _HEAD and self._fed > self.limits.head_bytes_max:
            self._refuse(HeadersTooLarge())
        elif self._phase == _BODY and self._fed > self.limits.body_wire_bytes_max:
            allowed = max(self.limits.body_wire_bytes_max, self._allowance.body_bytes_max)
            if self._fed > allowed:
                self._refuse(PayloadTooLarge(limit_bytes=allowed))

    def _keep_pace(self) -> None:
        """Put the deadline of an allowed long body off each time enough of it has come."""
        if self._fed - self._paced >= self.limits.body_pace_bytes and not self._is_ending:
            self._paced = self._fed
            self._deadline = self.loop.time() + self.limits.body_s

    def _set_deadline(self) -> None:
        if self._phase == _HEAD:
            self._deadline = self.loop.time() + self.limits.head_s
        elif self._phase == _BODY:
            self._deadline = self.loop.time() + self.limits.body_s
        elif not self._has_work():
            self._deadline = self.loop.time() + self.limits.idle_s  # answered before its body was all there
        else:
            self._deadline = math.inf  # the answer is the application's to bound

    def _refuse(self, error: PayflowError) -> None:
        """Answer what cannot be read and end the connection; nothing is written into another answer on its way."""
        broken = self.cycle if self._phase == _BODY and not self._is_turned_away else None
        running = self._running
        if running is not None and running is not broken and not running.response_complete:
            running.keep_alive = False
            self.pipeline.clear()
            self._is_ending = True
            self._deadline = math.inf
            return
        if broken is not None and not broken.response_complete:
            broken.disconnected = True  # the application learns that the client is gone; its answer has no reader
            broken.message_event.set()
            error.extra.update(self._allowance.names)
        if broken is None or not broken.response_started:
            self._wire.write(self._refusal(error))
        self.transport.close()

    def _refusal(self, error: PayflowError) -> bytes:
        trace = continue_trace(None)
        path = self.url.split(b"?")[0][:256].decode("ascii", "replace") if self._phase != _IDLE else ""
        answer = problem_response(error, instance=path or "/", trace_id=trace_id_of(trace))
        lines = [STATUS_LINE[answer.status]]
        trace_header = (b"traceresponse", trace.encode("ascii"))
        for name, value in (*self.server_state.default_headers, *answer.headers, *PUBLIC, trace_header):
            lines += (name, b": ", value, b"\r\n")
        lines += (b"connection: close\r\n\r\n", answer.body)
        return b"".join(lines)


class _GentleTransport(asyncio.Transport):
    """The transport as uvicorn's code sees it: closing it is closing gently."""

    def __init__(self, protocol: EdgeProtocol, wire: asyncio.Transport) -> None:
        super().__init__()
        self._protocol = protocol
        self._is_closed = False
        self.write = wire.write  # type: ignore[method-assign]
        self._wire = wire

    def is_closing(self) -> bool:
        return self._is_closed or self._wire.is_closing()

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._protocol.close_gently()
