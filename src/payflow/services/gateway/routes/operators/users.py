"""Users: who may sign in, as what. For administrators."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

import msgspec
from litestar import get, post

from payflow.contracts.account import GetCustomer
from payflow.contracts.gateway import NewUser, Role, UserView
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.domain.users import InvalidValue
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.operators.shared import END, NewId, PathText, QueryText, open_to
from payflow.services.gateway.routes.payments import Limit
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices
from payflow.services.gateway.usecases.users import SetEnabled


class UserState(StrEnum):
    ENABLED = "ENABLED"
    DISABLED = "DISABLED"


class NewUserBody(Body):
    """A user to create. A user of role customer has a `customer_id`. Give it also for those of the bank's own people
    who are customers themselves: nobody decides about a payment of their own.
    """

    username: Annotated[
        str, msgspec.Meta(max_length=64, pattern="^[A-Za-z0-9][A-Za-z0-9._@+-]*" + END, examples=["edsger"])
    ]
    role: Role
    password: Annotated[str, msgspec.Meta(min_length=8, max_length=256, examples=["a long enough password"])]
    customer_id: NewId | None = None


class UserStateBody(Body):
    """The state to change to."""

    state: UserState


class User(msgspec.Struct, kw_only=True):
    """A user. Passwords are never told."""

    username: str
    role: Role
    customer_id: str | None
    state: UserState
    created_at: datetime


class UserPage(msgspec.Struct):
    """Users, ordered by name. `next_cursor` is null on the last page."""

    data: list[User]
    next_cursor: str | None


_NEW: Final = StrictReader(NewUserBody, required=("username", "role", "password"))
_STATE: Final = StrictReader(UserStateBody, required=("state",))


@post(
    "/users",
    guards=[open_to()],
    tags=["Users"],
    summary="Create a user",
    opt={"body": NewUserBody, "errors": ("VALIDATION_FAILED", "CUSTOMER_NOT_FOUND", "USER_EXISTS")},
)
async def create_user(request: AnyRequest, services: FromServices) -> User:
    """No Idempotency-Key is needed: creation is idempotent by `username`. The same contents again, password included,
    answer the same user; other contents are USER_EXISTS. A `customer_id` must be a customer's.
    """
    body = await read_json(request, _NEW)
    if body.customer_id is not None:
        first(await services.account.get_customers([GetCustomer(customer_id=body.customer_id)]))
    command = NewUser(username=body.username, role=body.role, password=body.password, customer_id=body.customer_id)
    created_by = current_user(request.scope).username
    return _user(first(await services.gateway.create_users_as([command], created_by=created_by)))


@get("/users", guards=[open_to()], tags=["Users"], summary="List users")
async def list_users(services: FromServices, cursor: QueryText = None, limit: Limit = 50) -> UserPage:
    """All users, ordered by name without regard to case."""
    users, next_cursor = await services.gateway.list_users(after=cursor, limit=limit)
    return UserPage(data=[_user(user) for user in users], next_cursor=next_cursor)


@post(
    "/users/{username:str}/state",
    status_code=200,
    guards=[open_to()],
    tags=["Users"],
    summary="Disable a user, or enable them",
    opt={"body": UserStateBody, "errors": ("VALIDATION_FAILED", "USER_NOT_FOUND")},
)
async def change_user_state(request: AnyRequest, services: FromServices, username: PathText) -> User:
    """A disabled user's sessions end and their tokens are revoked, at once and everywhere. Nobody disables themselves:
    the last administrator would be locked out.
    """
    body = await read_json(request, _STATE)
    administrator = current_user(request.scope).username
    if body.state is UserState.DISABLED and username.lower() == administrator.lower():
        raise InvalidValue("Nobody disables themselves; ask another administrator.", field="state")
    command = SetEnabled(username=username, is_enabled=body.state is UserState.ENABLED, changed_by=administrator)
    return _user(first(await services.gateway.set_enabled([command])))


def _user(view: UserView) -> User:
    return User(
        username=view.username,
        role=view.role,
        customer_id=view.customer_id,
        state=UserState.ENABLED if view.is_enabled else UserState.DISABLED,
        created_at=view.created_at,
    )


HANDLERS = [create_user, list_users, change_user_state]
