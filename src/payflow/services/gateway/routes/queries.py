"""What may be asked of a route: the query parameters that its handler declares. Another one is refused: a filter with a
slip of the pen would list everything, and its reader would believe that it was filtered.

In a handler's `opt`, `UNREAD` names parameters that may be there although nobody reads them.
"""

from __future__ import annotations

import typing
from collections.abc import Iterable, Sequence
from enum import Enum
from functools import cache
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.params import QueryParameter

from payflow.platform.http.asgi import Scope
from payflow.platform.http.errors import UnreadableBody
from payflow.platform.http.wording import advice
from payflow.services.gateway.routes.bodies import AnyRequest

UNREAD: Final = "unread"
_NAMES_TOLD_MAX: Final = 5
_NAME_LENGTH_MAX: Final = 64


async def refuse_unknown_parameters(request: AnyRequest) -> None:
    """What the framework calls before each handler, after its guards. Raises UnreadableBody, naming the parameters."""
    if request.scope["query_string"]:
        handler = request.scope["route_handler"]
        is_known = isinstance(handler, HTTPRouteHandler)
        known = _known_to(handler) if is_known else ()
        unread = handler.opt.get(UNREAD, ()) if is_known else ()
        _refuse((name for name in request.query_params if name not in known and name not in unread), known=known)


def refuse_parameters(scope: Scope) -> None:
    """The same for a route that no framework serves and that takes none."""
    if scope["query_string"]:
        connection: ASGIConnection[Any, Any, Any, Any] = ASGIConnection(scope)  # type: ignore[arg-type]
        _refuse(connection.query_params, known=())


def _refuse(names: Iterable[str], *, known: Sequence[str]) -> None:
    unknown = list(dict.fromkeys(names))
    if not unknown:
        return
    shown = ", ".join(_shown(name) for name in unknown[:_NAMES_TOLD_MAX])
    more = ", ..." if len(unknown) > _NAMES_TOLD_MAX else ""
    subject = f"parameter {shown} is" if len(unknown) == 1 else f"parameters {shown}{more} are"
    told = f"known are: {', '.join(known)}" if known else "none is taken"
    raise UnreadableBody(f"The query {subject} not known here; {told}.")


def wanted_of(handler: object, *, parameter: str, problem: str) -> str:
    """A wrong parameter as its client knows it, and what to send: "state: send one of COMPLETED, REJECTED".

    `parameter` is the name in the handler, `problem` what the framework says of the value.
    """
    declared = _declared_by(handler) if isinstance(handler, HTTPRouteHandler) else {}
    kind, said = declared.get(parameter, (None, None))
    name = said.name or parameter if said is not None else parameter
    if said is not None and kind is int and said.ge is not None and said.le is not None:
        return f"{name}: send a whole number from {said.ge} to {said.le}"
    # A query has nothing but texts, so that what was got instead says nothing.
    wish = advice(problem.removesuffix(", got `str`"), choices=_choices_of(kind))
    return f"{name}: {wish}"


@cache
def _known_to(handler: HTTPRouteHandler) -> tuple[str, ...]:
    """The names of the query parameters that a handler reads, as its clients know them."""
    return tuple(said.name or name for name, (_, said) in _declared_by(handler).items())


@cache
def _declared_by(handler: HTTPRouteHandler) -> dict[str, tuple[Any, QueryParameter]]:
    """The type and description of each query parameter, by its name in the handler."""
    hints = typing.get_type_hints(handler.fn, include_extras=True)
    return {
        name: (typing.get_args(hint)[0], said)
        for name, hint in hints.items()
        for said in getattr(hint, "__metadata__", ())
        if isinstance(said, QueryParameter)
    }


def _choices_of(kind: Any) -> list[str]:
    for part in (kind, *typing.get_args(kind)):
        if isinstance(part, type) and issubclass(part, Enum):
            return [str(choice.value) for choice in part]
    return []


def _shown(name: str) -> str:
    """A name from the client, short and printable."""
    short = "".join(character if character.isprintable() else "?" for character in name[:_NAME_LENGTH_MAX])
    return short or '""'
