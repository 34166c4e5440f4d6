"""Calls to vendors over HTTP: one request, and its answer read whole within bounds."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, TypeVar

import aiohttp
import msgspec

import payflow
from payflow.services.notification.channels.vendor import NoAnswer, NotReached, UnreadableAnswer

T = TypeVar("T")

ANSWER_BYTES_MAX: Final = 256 * 1024
CONNECT_TIMEOUT_S: Final = 3.0
_HEADERS: Final = {"User-Agent": f"Payflow/{payflow.__version__}", "Accept-Encoding": "identity"}


class Answer(NamedTuple):
    """A vendor's answer as it came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def read(self, kind: type[T]) -> T:
        """The body as JSON of a shape. Raises UnreadableAnswer."""
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError):
            # Not the error's own words: they may quote what was sent.
            raise UnreadableAnswer from None

    def read_or(self, kind: type[T], default: T) -> T:
        """The same, where an error may come without its explanation."""
        try:
            return self.read(kind)
        except UnreadableAnswer:
            return default

    def retry_after(self, *, now: datetime) -> timedelta | None:
        """The pause that Retry-After asks for, in seconds or as a date (RFC 9110); None where there is none."""
        said = self.headers.get("Retry-After", "").strip()
        if said.isascii() and said.isdigit() and len(said) <= 9:
            return timedelta(seconds=int(said))
        try:
            at = parsedate_to_datetime(said)
        except (ValueError, TypeError):
            return None
        return max(timedelta(0), (at if at.tzinfo else at.replace(tzinfo=UTC)) - now)


class HttpCaller:
    """Connections to vendors. Opened at the first call; close it at the end."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                # Calls are bounded by the channels; idle connections are kept for the next message.
                connector=aiohttp.TCPConnector(limit=0, ssl=self._tls or True, keepalive_timeout=30),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S),
                headers=_HEADERS,
                trust_env=False,
            )
        return self._session

    async def ask(self, method: str, url: str, **content: Any) -> Answer:
        """Send a request. Raises NotReached where no connection was made, NoAnswer where no answer came."""
        try:
            async with self._opened().request(method, url, allow_redirects=False, **content) as response:
                return Answer(response.status, response.headers, await _read_bounded(response))
        except aiohttp.ClientConnectorError:
            raise NotReached from None
        except aiohttp.ConnectionTimeoutError:
            raise NotReached from None
        except (aiohttp.ClientError, OSError, ValueError):
            # The library's words would name the address, which may hold a phone number.
            raise NoAnswer from None

    async def close(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > ANSWER_BYTES_MAX:
            raise UnreadableAnswer
        parts.append(part)
    return b"".join(parts)
