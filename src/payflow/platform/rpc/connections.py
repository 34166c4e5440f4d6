"""Kept-alive HTTP/1.1 connections to one service: a POST, and its answer.

As narrow as a call between services: a request is one write, an answer is read whole. llhttp (httptools) does the
parsing. A general client spends as much on a call as the batch in it costs (ADR 0006).
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Mapping
from typing import Final, cast
from urllib.parse import urlsplit

import httptools

# Below the server's own bound (http.limits.ConnectionLimits.idle_s), so that a request never meets a closing server.
IDLE_S: Final = 30.0
# Behind one address there may be several processes, and it is at the connection that one of them is chosen: so that a
# process that came later gets its share, a connection ends after a while. Not all at once, hence the range.
AGE_S: Final = (45.0, 75.0)
CONNECT_S: Final = 1.0
ANSWER_MAX_BYTES: Final = 64 * 1024 * 1024


class NotConnected(Exception):
    """No connection could be made: nothing was sent."""


class NoAnswer(Exception):
    """The request was sent, at least in part, and its answer has not come, or is not HTTP."""


class _Connection(asyncio.Protocol):
    """One connection; one request at a time. Parser callbacks are named by httptools."""

    def __init__(self, loop: asyncio.AbstractEventLoop, age_s: float) -> None:
        self._loop = loop
        self._parser = httptools.HttpResponseParser(self)
        self._wire: asyncio.Transport | None = None
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._body: list[bytes] = []
        self._size = 0
        self.idle_since = 0.0
        self._ends_at = loop.time() + age_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are of no class of asyncio's.
        self._wire = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("The connection was closed.")

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"The answer is not valid HTTP: {error}")
            self.close()

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if self._size > ANSWER_MAX_BYTES:
            raise ValueError("The answer is too long.")
        self._body.append(body)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # An interim answer; the final one follows.
        answer, self._answer = self._answer, None
        body, self._body, self._size = b"".join(self._body), [], 0
        self.idle_since = self._loop.time()
        if answer is None or not self._parser.should_keep_alive():
            self.close()
        if answer is not None and not answer.done():
            answer.set_result((status, body))

    def is_fresh(self, now: float) -> bool:
        """Whether another request may be sent on it."""
        if self._wire is None or self._wire.is_closing():
            return False
        return now - self.idle_since < IDLE_S and now < self._ends_at

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Send a request and wait for its answer: (status, body). Raises NoAnswer."""
        if self._wire is None:
            raise NoAnswer("The connection was closed.")
        answer: asyncio.Future[tuple[int, bytes]] = self._loop.create_future()
        self._answer = answer
        self._wire.write(request)
        return await answer

    def close(self) -> None:
        """End it, whatever is under way."""
        if self._wire is not None:
            self._wire.abort()

    def _fail(self, words: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None and not answer.done():
            answer.set_exception(NoAnswer(words))


class Connections:
    """The connections to one service. `url`: http or https, host and port; a path before the operation's may follow.

    `age_s`: the least and the most seconds after which a connection ends, between two requests.
    """

    def __init__(self, url: str, *, age_s: tuple[float, float] = AGE_S) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or parts.hostname is None:
            raise ValueError(f"{url} is not the address of a service: http://HOST:PORT")
        self._ssl = ssl.create_default_context() if parts.scheme == "https" else None
        self._host = parts.hostname
        self._port = parts.port or (443 if self._ssl else 80)
        self._prefix = parts.path.rstrip("/")
        self._authority = parts.netloc.rpartition("@")[2]
        self._age_s = age_s
        self._idle: list[_Connection] = []
        self._all: set[_Connection] = set()

    async def post(self, path: str, *, headers: Mapping[str, str], body: bytes) -> tuple[int, bytes]:
        """One POST: (status, body). Whoever stops waiting ends the connection, so that no late answer meets another
        request. Raises NotConnected, NoAnswer."""
        connection = self._take() or await self._connect()
        is_done = False
        try:
            answer = await connection.send(self._head(path, headers, len(body)) + body)
            is_done = True
            return answer
        finally:
            if is_done and connection.is_fresh(connection.idle_since):
                self._idle.append(connection)
            else:
                connection.close()
                self._all.discard(connection)

    def close(self) -> None:
        """End all connections."""
        for connection in self._all:
            connection.close()
        self._all.clear()
        self._idle.clear()

    def _take(self) -> _Connection | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            # The one used last, so that those that are not needed grow old and end.
            connection = self._idle.pop()
            if connection.is_fresh(now):
                return connection
            connection.close()
            self._all.discard(connection)
        return None

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        age_s = random.uniform(*self._age_s)  # noqa: S311 - spreads load, guards nothing
        try:
            async with asyncio.timeout(CONNECT_S):
                _, connection = await loop.create_connection(
                    lambda: _Connection(loop, age_s), self._host, self._port, ssl=self._ssl
                )
        except (OSError, TimeoutError) as error:
            raise NotConnected(str(error)) from error
        self._all.add(connection)
        return connection

    def _head(self, path: str, headers: Mapping[str, str], length: int) -> bytes:
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return (
            f"POST {self._prefix}{path} HTTP/1.1\r\nhost: {self._authority}\r\n{fields}content-length: {length}\r\n\r\n"
        ).encode("latin-1")
