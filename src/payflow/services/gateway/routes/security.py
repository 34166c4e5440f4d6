"""Who may call a route. Routes are closed: one without a word about it takes any signed-in user, none takes nobody.

`OPEN` in a handler's `opt` opens it to everybody; `guards=[require_roles(...)]` narrows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from litestar.connection import ASGIConnection
from litestar.handlers.base import BaseRouteHandler

from payflow.contracts.gateway import AccessTokenRequired, Forbidden, Role
from payflow.kernel.errors import PayflowError
from payflow.services.gateway.domain.sessions import Identity
from payflow.services.gateway.freshness import names_of
from payflow.services.gateway.public import IDENTITY

IS_OPEN: Final = "is_open"
ROLES: Final = "roles"
OPEN: Final[dict[str, Any]] = {IS_OPEN: True}
# For the documentation of routes that ask `customer_of` instead of having a guard.
FOR_CUSTOMERS: Final[dict[str, Any]] = {ROLES: frozenset({Role.CUSTOMER})}

Connection = ASGIConnection[Any, Any, Any, Any]
Guard = Callable[[Connection, BaseRouteHandler], None]


def current_user(scope: Mapping[str, object]) -> Identity:
    """The signed-in user of a request. Raises AccessTokenRequired, InvalidToken or TokenRevoked."""
    identity = scope.get(IDENTITY)
    if isinstance(identity, PayflowError):
        raise identity
    if not isinstance(identity, Identity):
        raise AccessTokenRequired
    return identity


def signed_in(connection: Connection, handler: BaseRouteHandler) -> None:
    """The guard of all routes: a valid token, unless the route is open."""
    if not handler.opt.get(IS_OPEN):
        current_user(connection.scope)


def require_roles(*roles: Role) -> Guard:
    """A guard that lets only users of these roles in. Raises Forbidden, or what current_user raises."""
    allowed = frozenset(roles)

    def guard(connection: Connection, handler: BaseRouteHandler) -> None:
        if current_user(connection.scope).role not in allowed:
            raise Forbidden

    guard.roles = allowed  # type: ignore[attr-defined]
    return guard


def freshness_name(scope: Mapping[str, object]) -> str:
    """Whose last change a list for the signed-in user must show: the customer's, whose users see what each of them did;
    an operator's own. Raises what current_user raises."""
    return names_of(current_user(scope))[-1]


def customer_of(scope: Mapping[str, object]) -> str:
    """The customer whose payments and accounts a request may see. Raises Forbidden for anybody who is no customer."""
    identity = current_user(scope)
    if identity.role is not Role.CUSTOMER or identity.customer_id is None:
        raise Forbidden("Only customers have payments and accounts of their own.")
    return identity.customer_id
