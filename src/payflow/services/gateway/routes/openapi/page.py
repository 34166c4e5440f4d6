"""`GET /docs`: Swagger UI from this server alone, without anything inline, so that the strictest policy holds."""

from __future__ import annotations

import hashlib
import importlib.resources
from functools import cache
from typing import Any, Final

from litestar import Response, get
from litestar.params import FromPath

from payflow.platform.http.errors import NotFound
from payflow.services.gateway.routes.documented import Answer
from payflow.services.gateway.routes.queries import UNREAD
from payflow.services.gateway.routes.security import OPEN

_ASSETS: Final = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "payflow.css": "text/css",
    "payflow.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
# The page names each asset with a digest of its contents, so what was fetched once never changes.
_FOR_EVER: Final = "public, max-age=31536000, immutable"
_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Payflow API</title>
<link rel="icon" type="image/png" href="{favicon-32x32.png}">
<link rel="stylesheet" href="{swagger-ui.css}">
<link rel="stylesheet" href="{payflow.css}">
</head>
<body>
<div id="api"></div>
<noscript>This page needs JavaScript. The document itself is at <a href="/openapi.json">/openapi.json</a>.</noscript>
<script src="{swagger-ui-bundle.js}"></script>
<script src="{payflow.js}"></script>
</body>
</html>
"""


@get(
    "/docs",
    tags=["Service"],
    summary="This document as a page",
    opt={**OPEN, "answers": {200: Answer(str, "text/html", headers=("Cache-Control",))}},
)
async def get_docs() -> Response[str]:
    """A page to read and to try requests on. It loads nothing from elsewhere."""
    return Response(_page(), media_type="text/html", headers={"cache-control": "no-cache"})


@get(
    "/docs/assets/{name:str}",
    tags=["Service"],
    summary="A part of the page",
    opt={
        **OPEN,
        UNREAD: ("v",),
        "errors": ("NOT_FOUND",),
        "answers": {200: Answer(Any, "*/*", headers=("Cache-Control",))},
    },
)
async def get_docs_asset(name: FromPath[str]) -> Response[Any]:
    """Style, script or picture of the page."""
    if name not in _ASSETS:
        raise NotFound
    return Response(_asset(name), media_type=_ASSETS[name], headers={"cache-control": _FOR_EVER})


@cache
def _asset(name: str) -> bytes:
    return importlib.resources.files("payflow.services.gateway").joinpath("docs", name).read_bytes()


@cache
def _page() -> str:
    page = _PAGE
    for name in _ASSETS:
        digest = hashlib.sha256(_asset(name)).hexdigest()[:12]
        page = page.replace(f"{{{name}}}", f"/docs/assets/{name}?v={digest}")
    return page


HANDLERS: Final = [get_docs, get_docs_asset]
