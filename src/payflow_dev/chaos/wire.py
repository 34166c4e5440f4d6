"""Requests over HTTP whose answer may never come, each with the instants at which it was sent and answered."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import aiohttp
import msgspec

from payflow_dev.chaos.history import now_ns

TIMEOUT_S: Final = 12.0
READ_TRIES: Final = 100
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
    """One pool of connections for everybody."""

    def __init__(self) -> None:
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
        for _ in range(READ_TRIES):
            answer = await self.ask("GET", url, token=token)
            if answer.status == 200:
                return answer.json
            if answer.status == 404:
                return None
            await asyncio.sleep(READ_AGAIN_S)
        raise TimeoutError(f"{url} was never answered")
