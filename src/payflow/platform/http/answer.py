"""The way of an answer onto the wire: head and body in one write, fields that never change checked once.

uvicorn checks every field of every answer by two patterns, which was a quarter of what a payment cost the gateway.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

from payflow.platform.http import headers as security
from payflow.platform.http.asgi import ASGIApp, Message, Receive, Scope, Send

_LENGTH: Final = b"content-length"
_BODILESS: Final = frozenset({204, 304})
# Fields as they go out, for the answers' constant ones.
_LINES: Final[dict[tuple[bytes, bytes], bytes]] = {
    field: b"%s: %s\r\n" % field for field in (*security.PUBLIC, *security.PUBLIC_DOCS, *security.INTERNAL)
}
_NAMES_MAX: Final = 256
_names: dict[bytes, bytes] = {}


class WholeAnswers:
    """Wraps one request's `send`: an answer whose length is known goes out whole. All others are uvicorn's own.

    `on_begin` is called as soon as the application is, which then comes to its admission without waiting for anything.
    """

    __slots__ = ("_app", "_cycle", "_head", "_length", "_on_begin")

    def __init__(self, app: ASGIApp, cycle: RequestResponseCycle, *, on_begin: Callable[[], None] | None) -> None:
        self._app = app
        self._cycle = cycle
        self._on_begin = on_begin
        self._head: bytes | None = None
        self._length = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._on_begin is not None:
            self._on_begin()
        await self._app(scope, receive, self.send)

    async def send(self, message: Message) -> None:
        """The application's `send`. Raises RuntimeError for a body that is not as long as was said."""
        cycle = self._cycle
        if self._head is not None:
            await self._send_body(message, self._head)
        elif message["type"] == "http.response.start" and self._is_whole(message):
            cycle.response_started, cycle.waiting_for_100_continue = True, False
            self._head = self._head_of(message)
        else:
            await cycle.send(cast(ASGISendEvent, message))

    def _is_whole(self, message: Message) -> bool:
        cycle = self._cycle
        if cycle.response_started or cycle.disconnected or cycle.access_log or message["status"] in _BODILESS:
            return False
        if cycle.scope["method"] == "HEAD":
            return False
        length = None
        for name, value in message.get("headers", ()):
            if name == _LENGTH:
                length = value
            elif name in (b"transfer-encoding", b"connection"):
                return False
        if length is None:
            return False
        self._length = int(length)
        return True

    def _head_of(self, message: Message) -> bytes:
        lines = [STATUS_LINE[message["status"]]]
        for field in (*self._cycle.default_headers, *message["headers"]):
            lines.append(_LINES.get(field) or _line(*field))
        if not self._cycle.keep_alive:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)

    async def _send_body(self, message: Message, head: bytes) -> None:
        """The first part of the body takes the head with it; what follows is the cycle's."""
        cycle = self._cycle
        body = message.get("body", b"")
        if cycle.flow.write_paused and not cycle.disconnected:
            await cycle.flow.drain()
        if cycle.disconnected:
            return
        self._head = None
        cycle.chunked_encoding, cycle.expected_content_length = False, self._length
        if len(body) > self._length or (len(body) < self._length and not message.get("more_body", False)):
            raise RuntimeError("The answer's body is not as long as its Content-Length says.")
        cycle.transport.write(head + body)
        cycle.expected_content_length -= len(body)
        if not message.get("more_body", False):
            cycle.response_complete = True
            cycle.message_event.set()
            if not cycle.keep_alive:
                cycle.transport.close()
            cycle.on_response()


def _line(name: bytes, value: bytes) -> bytes:
    """A field as it goes out. Raises RuntimeError where it would be more than one field."""
    known = _names.get(name)
    if known is None:
        if HEADER_RE.search(name):
            raise RuntimeError("Invalid HTTP header name.")
        known = name.lower()
        if len(_names) < _NAMES_MAX:
            _names[name] = known
    if HEADER_VALUE_RE.search(value):
        raise RuntimeError("Invalid HTTP header value.")
    return b"%s: %s\r\n" % (known, value)
