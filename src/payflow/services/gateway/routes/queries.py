"""What may be asked of a route: the query parameters that its handler declares. Another one is refused: a filter with a
slip of the pen would list everything, and its reader would believe that it was filtered.

In a handler's `opt`, `UNREAD` names parameters that may be there although nobody reads them.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from payflow.platform.http.asgi import Scope
from payflow.platform.http.errors import UnreadableBody
from payflow.services.gateway.routes.bodies import AnyRequest

UNREAD: Final = "unread"
_NAMES_TOLD_MAX: Final = 5
_NAME_LENGTH_MAX: Final = 64


async def refuse_unknown_parameters(request: AnyRequest) -> None:
    """What the framework calls before each handler, after its guards. Raises UnreadableBody, naming the parameters."""
    if request.scope["query_string"]:
        handler = request.scope["route_handler"]
        known = _known_to(handler) if isinstance(handler, HTTPRouteHandler) else frozenset()
        _refuse(name for name in request.query_params if name not in known)


def refuse_parameters(scope: Scope) -> None:
    """The same for a route that no framework serves and that takes none."""
    if scope["query_string"]:
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)  # type: ignore[arg-type]
        _refuse(connection.query_params)


def _refuse(names: Iterable[str]) -> None:
    unknown = list(dict.fromkeys(names))
    if not unknown:
        return
    shown = ", ".join(_shown(name) for name in unknown[:_NAMES_TOLD_MAX])
    if len(unknown) == 1:
        raise UnreadableBody(f"The query parameter {shown} is not known here; leave it out.")
    more = ", ..." if len(unknown) > _NAMES_TOLD_MAX else ""
    raise UnreadableBody(f"The query parameters {shown}{more} are not known here; leave them out.")


@cache
def _known_to(handler: HTTPRouteHandler) -> frozenset[str]:
    hints = typing.get_type_hints(handler.fn, include_extras=True)
    declared = {
        said.name or name
        for name, hint in hints.items()
        for said in getattr(hint, "__metadata__", ())
        if isinstance(said, QueryParameter)
    }
    return frozenset(declared | set(handler.opt.get(UNREAD, ())))


def _shown(name: str) -> str:
    """A name from the client, short and printable."""
    short = "".join(character if character.isprintable() else "?" for character in name[:_NAME_LENGTH_MAX])
    return short or '""'
