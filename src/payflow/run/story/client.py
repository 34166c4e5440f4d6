"""The story's HTTP client: one request at a time, and every unexpected answer in one clear line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Final

import aiohttp

from payflow.run.errors import StartError

_TIMEOUT_S: Final = 30


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    method: str
    path: str
    status: int
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        """The body, its numbers exact. Raises StartError where it is no JSON object."""
        try:
            document = json.loads(self.body, parse_float=Decimal)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise StartError(f"{self.method} {self.path} answered {self.status} with what is no JSON object.")
        return document

    def expect(self, code: int, /, **members: object) -> dict[str, Any]:
        """The body. Raises StartError when the status code or one of these members is another."""
        document = self.json if self.body else {}
        if self.status == code and all(document.get(name) == value for name, value in members.items()):
            return document
        wanted = " ".join([str(code), *(f"{name}={value}" for name, value in members.items())])
        told = document.get("error") or document.get("status")
        raise StartError(
            f"{self.method} {self.path} should have answered {wanted}; it answered {self.status} {told}: "
            f"{document.get('detail', '')}".rstrip(": ")
        )


class StoryClient:
    """Sends the story's requests to one public address."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def send(
        self, method: str, path: str, *, token: str | None = None, key: str | None = None, body: Any = None
    ) -> Reply:
        """One request. Raises StartError when nobody answers, and when the limit of requests is used up."""
        headers: dict[str, str] = {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        if key is not None:
            headers["Idempotency-Key"] = key
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with self._session.request(
                method, self.url + path, data=data, headers=headers, timeout=timeout
            ) as response:
                reply = Reply(method, path, response.status, await response.read())
                if response.status == 429:
                    raise StartError(_when_again(reply, response.headers))
                return reply
        except (aiohttp.ClientError, TimeoutError) as error:
            raise StartError(f"{method} {self.url}{path} got no answer: {error or type(error).__name__}.") from None


def _when_again(reply: Reply, headers: Mapping[str, str]) -> str:
    """A used-up limit as a line that says when the next try will work."""
    seconds = int(headers.get("Retry-After", "1"))
    again = datetime.now().astimezone() + timedelta(seconds=seconds)
    return (
        f"Too many requests: {reply.json.get('detail', '')} The demo takes about 20; it works again at "
        f"{again:%H:%M:%S}, in {seconds} s. "
        "A start with PAYFLOW_RATE_LIMIT_PER_IP=10000/15m raises the limit."
    )
