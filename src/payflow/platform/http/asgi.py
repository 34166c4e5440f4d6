"""The few things that an ASGI application without a framework needs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, NamedTuple, TypeAlias

from payflow.platform.http.errors import ClientGone, PayloadTooLarge

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = list[tuple[bytes, bytes]]

BODY_MAX_BYTES: Final = 64 * 1024


class Response(NamedTuple):
    """A whole answer."""

    status: int
    headers: Headers
    body: bytes


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a header field, None where it is absent. `name` is in lower case."""
    for known, value in scope["headers"]:
        if known == name:
            return bytes(value)
    return None


def bytes_response(status: int, body: bytes, *, content_type: bytes, headers: Headers | None = None) -> Response:
    """An answer of these bytes, with Content-Type and Content-Length."""
    own = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    return Response(status, own + headers if headers else own, body)


def json_response(status: int, body: bytes, *, headers: Headers | None = None) -> Response:
    """An answer of encoded JSON."""
    return bytes_response(status, body, content_type=b"application/json", headers=headers)


async def send_response(send: Send, response: Response) -> None:
    """Send a whole answer."""
    await send({"type": "http.response.start", "status": response.status, "headers": response.headers})
    await send({"type": "http.response.body", "body": response.body})


async def read_body(scope: Scope, receive: Receive, *, limit_bytes: int = BODY_MAX_BYTES) -> bytes:
    """The whole body. Content-Length is believed only when it is too large already; what arrives is counted.

    Raises PayloadTooLarge, before reading where Content-Length says so, and ClientGone.
    """
    length = header(scope, b"content-length")
    if length is not None and int(length) > limit_bytes:
        raise PayloadTooLarge(limit_bytes=limit_bytes)
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit_bytes:
            raise PayloadTooLarge(limit_bytes=limit_bytes)
        more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def with_lifespan(app: ASGIApp, lifespan: Callable[[], AbstractAsyncContextManager[object]]) -> ASGIApp:
    """Give a bare application the ASGI lifespan: `lifespan()` is entered before the first request and left after the
    last. A failure to enter ends the process's start with that error."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _run_lifespan(lifespan, receive, send)
        else:
            await app(scope, receive, send)

    return application


async def _run_lifespan(
    lifespan: Callable[[], AbstractAsyncContextManager[object]], receive: Receive, send: Send
) -> None:
    await receive()
    begun = False
    try:
        async with lifespan():
            begun = True
            await send({"type": "lifespan.startup.complete"})
            await receive()
    except Exception as error:
        name = "shutdown" if begun else "startup"
        await send({"type": f"lifespan.{name}.failed", "message": f"{type(error).__name__}: {error}"})
        raise
    await send({"type": "lifespan.shutdown.complete"})
