"""The public routes. Every module here with a list `HANDLERS` is served and documented: adding a file is enough.

A handler may have the parameters `services` (routes.services.Services) and `keys`; it finds its user by
`security.current_user(request.scope)` and raises errors of the four families. `opt["body"]` names the Struct that it
reads with `bodies.read_json`, for the documentation.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, NoReturn

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException, MethodNotAllowedException, NotFoundException, ValidationException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.config import OpenAPIConfig

from payflow.kernel.errors import PayflowError
from payflow.platform.http.errors import MethodNotAllowed, NotFound, UnreadableBody
from payflow.services.gateway.keys import FileKeyRing
from payflow.services.gateway.routes.bodies import AnyRequest
from payflow.services.gateway.routes.queries import refuse_unknown_parameters, wanted_of
from payflow.services.gateway.routes.security import signed_in
from payflow.services.gateway.routes.services import Services


def all_handlers() -> list[HTTPRouteHandler]:
    """The handlers of every module in this package."""
    handlers: list[HTTPRouteHandler] = []
    for entry in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{entry.name}")
        handlers += getattr(module, "HANDLERS", [])
    return handlers


def make_routes(
    *,
    services: Services,
    keys: FileKeyRing,
    handlers: list[HTTPRouteHandler] | None = None,
    openapi: OpenAPIConfig | None = None,
) -> Litestar:
    """The routes as one ASGI application. Errors leave it as exceptions: the edge gives every error its one shape."""
    return Litestar(
        route_handlers=all_handlers() if handlers is None else handlers,
        guards=[signed_in],
        before_request=refuse_unknown_parameters,
        dependencies={
            "services": Provide(lambda: services, sync_to_thread=False),
            "keys": Provide(lambda: keys, sync_to_thread=False),
        },
        exception_handlers={Exception: _raise_ours},
        openapi_config=openapi,
        logging_config=None,
        debug=False,
    )


def _raise_ours(request: AnyRequest, error: Exception) -> NoReturn:
    raise _translated(error, request)


def _translated(error: Exception, request: AnyRequest) -> Exception:
    """The framework's refusals as ours; anything else as it is."""
    if isinstance(error, PayflowError) or not isinstance(error, HTTPException):
        return error
    if isinstance(error, NotFoundException):
        return NotFound()
    if isinstance(error, MethodNotAllowedException):
        return MethodNotAllowed(allow=(error.headers or {}).get("allow", "").split(", "))
    if isinstance(error, ValidationException):
        return UnreadableBody(_what_is_wrong(error.extra, request.scope.get("route_handler")))
    return UnreadableBody(error.detail) if error.status_code < 500 else error


def _what_is_wrong(extra: Any, handler: Any) -> str:
    """Litestar's list of wrong parameters as a sentence: "limit: send a whole number from 1 to 200."."""
    items = [item for item in extra if "key" in item] if isinstance(extra, list) else []
    wrong = [wanted_of(handler, parameter=item["key"], problem=item["message"]) for item in items]
    return "; ".join(wrong) + "." if wrong else ""
