"""What a request can be refused for before any service has looked at its meaning."""

from __future__ import annotations

from collections.abc import Iterable

from payflow.kernel.errors import Rejection


class UnreadableBody(Rejection):
    """The body is not the one JSON object that the route reads; `detail` names the field and what to do."""

    code = "MALFORMED_REQUEST"


class MissingRequiredFields(Rejection):
    """Required fields are absent, null or empty: `missing_fields` names all of them."""

    code = "MISSING_REQUIRED_FIELDS"

    def __init__(self, detail: str = "", *, missing_fields: Iterable[str]) -> None:
        missing = list(missing_fields)
        super().__init__(detail or f"Required fields are missing: {', '.join(missing)}.", missing_fields=missing)


class MalformedHead(UnreadableBody):
    """The request line or a header field breaks the rules of HTTP; the connection ends with the answer."""


class NotFound(Rejection):
    """There is nothing at this address."""

    code = "NOT_FOUND"


class MethodNotAllowed(Rejection):
    """The address exists and does not take that method; `allow` becomes the Allow header."""

    code = "METHOD_NOT_ALLOWED"

    def __init__(self, detail: str = "", *, allow: Iterable[str]) -> None:
        super().__init__(detail, allow=sorted(allow))


class PayloadTooLarge(Rejection):
    """The body is longer than the route reads."""

    code = "PAYLOAD_TOO_LARGE"

    def __init__(self, *, limit_bytes: int) -> None:
        super().__init__(f"The body is larger than {limit_bytes // 1024} KB.", limit_bytes=limit_bytes)


class UnsupportedMediaType(Rejection):
    """The body is of a type that the route does not read."""

    code = "UNSUPPORTED_MEDIA_TYPE"


class RequestTimedOut(Rejection):
    """The head or the body did not arrive in time; the connection ends with the answer."""

    code = "REQUEST_TIMEOUT"


class HeadersTooLarge(Rejection):
    """The header fields are too long or too many; the connection ends with the answer."""

    code = "HEADERS_TOO_LARGE"


class ClientGone(Exception):
    """The client closed the connection before its request was read; there is nobody left to answer."""
