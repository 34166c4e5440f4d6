"""Reading a request at one glance: for a process that is full, and will say no to whatever it asks.

The usual way through a connection's own parser takes note of every field, for an application that needs them. Here the
same llhttp finds where the message ends, and no more is kept of it than an answer tells.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import httptools

from payflow.platform.http.limits import ConnectionLimits
from payflow.platform.http.target import HOST, PLAIN_TARGET

# What a name stands for at which there is more to a request than a glance tells.
_UNUSUAL: Final = frozenset({b"transfer-encoding", b"expect", b"upgrade"})


class Glance(NamedTuple):
    """What the answer to a request tells of it."""

    target: bytes
    traceparent: bytes | None


class Glancer:
    """Reads requests of any number of connections that are between two messages. For one thread."""

    def __init__(self) -> None:
        self._noted = _Noted()

    def read(self, data: bytes, limits: ConnectionLimits) -> Glance | None:
        """The request that these bytes are: one, whole, plain and valid, of a client that stays. None for all else."""
        if len(data) > limits.head_bytes_max:
            return None
        noted = self._noted
        noted.clear()
        try:
            noted.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._begin_anew()
            return None
        if not (noted.begun == noted.ended == 1 and noted.stays):
            # The parser is inside a message, or behind a last one.
            self._begin_anew()
            return None
        is_valid = (
            noted.is_plain
            and noted.fields <= limits.header_fields_max
            and len(noted.hosts) == 1
            and HOST.fullmatch(noted.hosts[0])
            and len(noted.target) <= limits.target_bytes_max
            and PLAIN_TARGET.fullmatch(noted.target)
        )
        return Glance(noted.target, noted.traceparent) if is_valid else None

    def _begin_anew(self) -> None:
        # A parser and what it tells hold each other: cut, so that no collector has to find them.
        del self._noted.parser
        self._noted = _Noted()


class _Noted:
    """A parser, and what it tells of the present bytes."""

    __slots__ = ("begun", "ended", "fields", "hosts", "is_plain", "parser", "stays", "target", "traceparent")

    def __init__(self) -> None:
        self.parser = httptools.HttpRequestParser(self)
        self.clear()

    def clear(self) -> None:
        self.begun = self.ended = self.fields = 0
        self.hosts: list[bytes] = []
        self.is_plain = True
        self.stays = False
        self.target = b""
        self.traceparent: bytes | None = None

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields += 1
        name = name.lower()
        if name == b"host":
            self.hosts.append(value)
        elif name == b"traceparent":
            self.traceparent = value if self.traceparent is None else self.traceparent
        elif name in _UNUSUAL:
            self.is_plain = False

    def on_message_complete(self) -> None:
        self.ended += 1
        self.stays = self.parser.should_keep_alive() and self.parser.get_http_version() == "1.1"
        if self.parser.get_method() == b"HEAD":
            self.is_plain = False  # its answer has no body
