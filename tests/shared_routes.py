"""One set of public routes for all gateways of a test process: making them takes a quarter of a second.

The routes themselves are stateless; what a request works with is found when it comes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from contextvars import ContextVar
from functools import cache, partial
from typing import Any, Final

from payflow.platform.http.asgi import ASGIApp, Receive, Scope, Send
from payflow.services.gateway.keys import FileKeyRing
from payflow.services.gateway.routes import make_routes
from payflow.services.gateway.routes.services import Services

_services: Final[ContextVar[Services]] = ContextVar("services")
_keys: Final[ContextVar[FileKeyRing]] = ContextVar("keys")


def shared_routes(*, services: Services, keys: FileKeyRing) -> ASGIApp:
    """The shared routes for an application with services and keys of its own: what `public_app` is given."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        _services.set(services)
        _keys.set(keys)
        await _routes()(scope, receive, send)

    return app


@cache
def _routes() -> Any:
    # The framework lets through what is of the declared type, and of a dataclass nothing but the class itself.
    parts = {part.name: _forwarding(object, partial(_part, part.name)) for part in dataclasses.fields(Services)}
    return make_routes(services=Services(**parts), keys=_forwarding(FileKeyRing, _keys.get))


def _part(name: str) -> Any:
    return getattr(_services.get(), name)


def _forwarding(kind: type[Any], current: Callable[[], Any]) -> Any:
    """An object of that kind, with the attributes and items of the one that is current when it is asked."""
    methods = {
        "__getattribute__": lambda _, name: getattr(current(), name),
        "__getitem__": lambda _, key: current()[key],
    }
    return object.__new__(type(f"Current{kind.__name__}", (kind,), methods))
