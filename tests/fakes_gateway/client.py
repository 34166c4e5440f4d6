"""A client of the gateway's public side."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec


@dataclass
class Reply:
    """An answer as a client sees it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)


class Client:
    """Talks ASGI to an application, as one address."""

    def __init__(self, app: Any, *, address: str = "192.0.2.1") -> None:
        self._app = app
        self._address = address

    async def send(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        token: str | None = None,
        key: str | None = None,
        headers: Sequence[tuple[str, str]] = (),
        address: str | None = None,
        then: Literal["end", "gone", "silence"] = "end",
    ) -> Reply:
        """One request with its whole answer. A body that is no bytes is sent as JSON.

        `then`: what comes after the body; with anything but its end it is cut, and a client that is gone hears nothing.
        """
        raw = body if isinstance(body, bytes) else b"" if body is None else msgspec.json.encode(body)
        sent = [(name.lower().encode(), value.encode()) for name, value in headers]
        names = {name for name, _ in sent}
        if body is not None and b"content-type" not in names:
            sent.append((b"content-type", b"application/json"))
        if token is not None:
            sent.append((b"authorization", f"Bearer {token}".encode()))
        if key is not None:
            sent.append((b"idempotency-key", key.encode()))
        if not names & {b"content-length", b"transfer-encoding"}:
            sent.append((b"content-length", str(len(raw) + (then != "end")).encode()))
        scope = self._scope(method, path, sent, address)
        messages: list[Any] = []
        parts: list[Any] = [{"type": "http.request", "body": raw, "more_body": then != "end"}]
        inbox = iter([*parts, {"type": "http.disconnect"}] if then == "gone" else parts)

        async def receive() -> Any:
            message = next(inbox, None)
            if message is None:
                await asyncio.Event().wait()
            return message

        async def send(message: Any) -> None:
            messages.append(message)

        await self._app(scope, receive, send)
        if not messages:
            return Reply(0, {}, b"")
        start = messages[0]
        content = b"".join(message.get("body", b"") for message in messages[1:])
        return Reply(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content)

    def _scope(self, method: str, path: str, headers: list[tuple[bytes, bytes]], address: str | None) -> Any:
        path, _, query = path.partition("?")
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": (address or self._address, 40000),
            "server": ("127.0.0.1", 8080),
            "state": {},
        }


def a_payment_body(**changes: Any) -> dict[str, Any]:
    """A whole body of `POST /payment/confirm`; None takes a field out."""
    body: dict[str, Any] = {
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
        "amount": "1000.00",
        "from_account": "ACC001",
        "to_account": "ACC002",
        **changes,
    }
    return {name: value for name, value in body.items() if value is not None}
