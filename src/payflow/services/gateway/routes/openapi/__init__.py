"""`GET /openapi.json`: the OpenAPI 3.1 document of the whole public API, and `GET /docs`: the same as a page."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any, Final

import msgspec
from litestar import Response, get

from payflow.services.gateway.routes.bodies import AnyRequest
from payflow.services.gateway.routes.documented import JSON, Answer
from payflow.services.gateway.routes.openapi.by_hand import OPERATIONS
from payflow.services.gateway.routes.openapi.document import build_document
from payflow.services.gateway.routes.openapi.operations import operations_of
from payflow.services.gateway.routes.openapi.page import HANDLERS as PAGE_HANDLERS
from payflow.services.gateway.routes.security import OPEN

_UNCHANGED: Final = Answer(None, description="Unchanged since the ETag that was sent.", headers=("ETag",))


@get(
    "/openapi.json",
    tags=["Service"],
    summary="This document",
    opt={
        **OPEN,
        "answers": {200: Answer(dict[str, Any], headers=("ETag", "Cache-Control")), 304: _UNCHANGED},
    },
)
async def get_openapi(request: AnyRequest) -> Response[Any]:
    """The OpenAPI 3.1 document of this API."""
    body, etag = openapi_document()
    # To be asked for each time, so that a client never generates code from an outdated document.
    headers = {"etag": etag, "cache-control": "public, no-cache"}
    if etag in request.headers.get("if-none-match", ""):
        return Response(None, status_code=304, headers=headers)
    return Response(body, media_type=JSON, headers=headers)


@cache
def openapi_document() -> tuple[bytes, str]:
    """The document and its ETag, built when first asked for: a fault in it must not keep payments from being made."""
    # At a call, not at import: the package of all routes imports this one.
    from payflow.services.gateway.routes import all_handlers

    operations = [operation for handler in all_handlers() for operation in operations_of(handler)]
    body = msgspec.json.encode(build_document([*OPERATIONS, *operations]))
    return body, f'"{hashlib.sha256(body).hexdigest()[:16]}"'


HANDLERS: Final = [get_openapi, *PAGE_HANDLERS]
