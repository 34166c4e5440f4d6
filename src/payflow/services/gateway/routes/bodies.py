"""Reading public bodies: JSON, once, by the strict reader."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec
from litestar import Request

from payflow.platform.http.errors import UnsupportedMediaType
from payflow.platform.http.strict_json import StrictReader

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

AnyRequest = Request[Any, Any, Any]

_JSON: Final = re.compile(rb'application/json(?:[ \t]*;[ \t]*charset="?utf-8"?)?', re.IGNORECASE)


class Body(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Base of every request body: unknown fields are refused."""


def check_media_type(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raises UnsupportedMediaType for anything but plain JSON in UTF-8."""
    content_type: bytes | None = None
    for name, value in headers:
        if name == b"content-type":
            if content_type is not None:
                raise UnsupportedMediaType
            content_type = value
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise UnsupportedMediaType("Send the body without Content-Encoding.")
    if content_type != b"application/json" and (content_type is None or not _JSON.fullmatch(content_type)):
        raise UnsupportedMediaType


async def read_json(request: AnyRequest, reader: StrictReader[S]) -> S:
    """The request's body. Raises UnsupportedMediaType, UnreadableBody, MissingRequiredFields, PayloadTooLarge."""
    check_media_type(request.scope["headers"])
    return reader.read(await request.body())


def first(answers: Sequence[T | Exception]) -> T:
    """The only answer of a list of one; raises it where it is an error."""
    (answer,) = answers
    if isinstance(answer, Exception):
        raise answer
    return answer
