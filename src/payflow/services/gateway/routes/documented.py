"""What a handler says of itself for the documentation where its signature does not tell.

In `opt`: `body` (the type it reads), `body_media_types` (else JSON), `body_is_optional`, `answers` ({status: type or
Answer}), `errors` (codes besides those of every route), `roles` (where no guard names them), `stream` (a media type),
`idempotency_key` ("optional").
Not documented: `unread` (query parameters that may be there although nobody reads them).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import msgspec

JSON: Final = "application/json"


class OneOf:
    """One of several types that the answers of one status have; `is_many`: a list whose items are."""

    def __init__(self, *kinds: Any, is_many: bool = False) -> None:
        self.kinds = kinds
        self.is_many = is_many


@dataclass(frozen=True)
class Answer:
    """A successful answer: its content's type (None: no content; or a OneOf) and media type."""

    type: Any
    media_type: str = JSON
    description: str = ""
    headers: tuple[str, ...] = ()


class Problem(msgspec.Struct, kw_only=True):
    """A refusal (RFC 9457). `error` is the code to tell refusals apart by; `trace_id` finds the request in the logs.

    One that was refused for its rate (429, 503 OVERLOADED) leaves no line there.
    Some refusals have further members, such as `missing_fields`, `field` and `retry_after_s`.
    """

    type: str
    title: str
    status: int
    detail: str
    instance: str
    error: str
    trace_id: str
