"""Requests over HTTP whose answer may never come, each with the instants at which it was sent and answered."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from payflow_dev.chaos.history import now_ns

TIMEOUT_S: Final = 12.0
# Longer than any process is stopped for: its callers are refused at once meanwhile.
READ_WITHIN_S: Final = 60.0
READ_AGAIN_S: Final = 0.15
_decode: Final = msgspec.json.Decoder().decode


class Answer(NamedTuple):
    """`status` and `answered_ns` are None where no answer came: nobody knows what the request has done."""

    status: int | None
    body: bytes
    invoked_ns: int
    answered_ns: int | None

    @property
    def text(self) -> str | None:
        """The body as text; None where there was no answer."""
        return None if self.status is None else self.body.decode("utf-8", "replace")

    @property
    def json(self) -> Any:
        """The body as what it says. Raises msgspec.DecodeError."""
        return _decode(self.body)


class Wire:
    """One pool of connections for everybody. A read is repeated for `read_within_s`, every `read_again_s`."""

    def __init__(self, *, read_within_s: float = READ_WITHIN_S, read_again_s: float = READ_AGAIN_S) -> None:
        self._read_within_s, self._read_again_s = read_within_s, read_again_s
        self._session: aiohttp.ClientSession | None = None

    def open(self) -> None:
        """Be able to ask; needs a running loop."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=5),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def ask(
        self, method: str, url: str, *, token: str, body: Any = None, data: Any = None, **headers: str
    ) -> Answer:
        """Send a request once, with a JSON `body` or with `data` as it is."""
        assert self._session is not None
        sent = {"Authorization": f"Bearer {token}"} | {name.replace("_", "-"): text for name, text in headers.items()}
        invoked_ns = now_ns()
        try:
            async with self._session.request(method, url, json=body, data=data, headers=sent) as response:
                return Answer(response.status, await response.read(), invoked_ns, now_ns())
        except (aiohttp.ClientError, TimeoutError, OSError):
            return Answer(None, b"", invoked_ns, None)

    async def read(self, url: str, *, token: str) -> Any:
        """A GET that must be answered: repeated until it is; None for 404. Raises TimeoutError."""
        ends_at = time.monotonic() + self._read_within_s
        while True:
            answer = await self.ask("GET", url, token=token)
            if answer.status == 200:
                return answer.json
            if answer.status == 404:
                return None
            if time.monotonic() >= ends_at:
                raise TimeoutError(f"{url} was not answered within {self._read_within_s:g} s")
            await asyncio.sleep(self._read_again_s)
