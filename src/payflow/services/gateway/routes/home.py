"""`GET /`: where somebody who has only the address finds the rest."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import get

from payflow import __version__
from payflow.services.gateway.routes.security import OPEN


class Home(msgspec.Struct):
    """What answers here. `links`: where to go on, by what is there."""

    service: str
    version: str
    links: dict[str, str]


_HOME: Final = Home(
    service="payflow",
    version=__version__,
    links={"documentation": "/docs", "openapi": "/openapi.json", "health": "/health", "keys": "/.well-known/jwks.json"},
)


@get("/", tags=["Service"], summary="What this is", opt=OPEN)
async def get_home() -> Home:
    """The name and version of the service, and its starting points."""
    return _HOME


HANDLERS: Final = [get_home]
