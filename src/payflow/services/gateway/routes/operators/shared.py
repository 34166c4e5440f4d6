"""What operators' routes have in common: who may call them, the fields they read, arrays with an answer per item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, TypeVar
from uuid import UUID

import msgspec
from litestar.params import PathParameter, QueryParameter

from payflow.contracts.gateway import Role
from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.platform.context import current_traceparent
from payflow.platform.http.errors import MissingRequiredFields, UnreadableBody
from payflow.platform.http.problem import problem_response
from payflow.platform.http.strict_json import StrictReader
from payflow.platform.http.trace import trace_id_of
from payflow.services.gateway.routes.bodies import AnyRequest, check_media_type
from payflow.services.gateway.routes.security import Guard, require_roles

S = TypeVar("S", bound=msgspec.Struct)
T = TypeVar("T")

ITEMS_MAX: Final = 500
# `(?!\n)`: in Python `$` also fits before a line break at the end.
END: Final = r"$(?!\n)"
PRINTABLE: Final = r"^[^\x00-\x1f\x7f]*[^\x00-\x20\x7f][^\x00-\x1f\x7f]*" + END
_ID: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]*" + END

# What a new record may be called: it becomes part of addresses.
NewId = Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=_ID, examples=["cust_100"])]
NewAccountNumber = Annotated[
    str, msgspec.Meta(min_length=1, max_length=34, pattern=_ID.replace(":", ""), examples=["ACC100"])
]
PersonName = Annotated[str, msgspec.Meta(min_length=1, max_length=140, pattern=PRINTABLE, examples=["Edsger Dijkstra"])]
Country = Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}" + END, examples=["NL"])]
Reason = Annotated[str, msgspec.Meta(min_length=1, max_length=500, pattern=PRINTABLE)]

# A text in an address. Looser than NewId: records that were loaded in bulk may have other names.
PathText = Annotated[str, PathParameter(max_length=128, pattern=PRINTABLE)]
QueryText = Annotated[str | None, QueryParameter(max_length=128, pattern=PRINTABLE)]


def open_to(*roles: Role) -> Guard:
    """A guard that lets these roles in, and administrators."""
    return require_roles(*roles, Role.ADMIN)


async def read_one_or_many(request: AnyRequest, *, one: StrictReader[S], many: StrictReader[Any]) -> S | list[S]:
    """The body: an object, or an array of such objects. `many` reads a Struct whose only field is the list `items`.

    Raises UnreadableBody, MissingRequiredFields, UnsupportedMediaType.
    """
    check_media_type(request.scope["headers"])
    body = await request.body()
    if not body.lstrip(b" \t\r\n").startswith(b"["):
        return one.read(body)
    try:
        # The syntax first, so that the rest cannot be anything but one array inside the object made around it.
        msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UnreadableBody(f"The body is not a valid JSON array ({error}).") from None
    try:
        items: list[S] = many.read(b'{"items":%b}' % body).items
    except MissingRequiredFields:
        raise UnreadableBody("The array is empty.") from None
    except UnreadableBody as error:
        raise _about_the_array(error) from None
    return items


def _about_the_array(error: UnreadableBody) -> UnreadableBody:
    """The error as it reads without the object around the array: "[3].name: expected `str`, got `int`."."""
    extra = {name: value.removeprefix("items") for name, value in error.extra.items() if isinstance(value, str)}
    return UnreadableBody(error.detail.replace("items: ", "the array: ").replace("items[", "["), **extra)


def answer_each(answers: Sequence[T | PayflowError], shown: Callable[[T], Any], *, instance: str) -> list[Any]:
    """Every item's result or problem, in order. Raises the error where nobody could be asked about any of them."""
    if all(isinstance(answer, Unavailable | UnknownOutcome) for answer in answers):
        raise next(answer for answer in answers if isinstance(answer, PayflowError))
    trace_id = trace_id_of(current_traceparent.get())

    def item(answer: T | PayflowError) -> Any:
        if isinstance(answer, PayflowError):
            return msgspec.Raw(problem_response(answer, instance=instance, trace_id=trace_id).body)
        return shown(answer)

    return [item(answer) for answer in answers]


def read_id_cursor(cursor: str | None) -> UUID | None:
    """A cursor that is an id. Raises UnreadableBody for what no list gave."""
    try:
        return None if cursor is None else UUID(cursor)
    except ValueError:
        raise UnreadableBody("cursor: send next_cursor of the page before as it is.", field="cursor") from None


def as_text(cursor: object | None) -> str | None:
    """A cursor as it is told."""
    return None if cursor is None else str(cursor)
