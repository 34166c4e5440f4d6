"""What the documentation knows of a route, read off its handler: nothing is said twice that the code says already."""

from __future__ import annotations

import inspect
import re
import typing
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, Final

import msgspec
from litestar import Response
from litestar.handlers import HTTPRouteHandler
from litestar.params import HeaderParameter, ParameterKwarg, PathParameter

from payflow.services.gateway.routes.documented import JSON, Answer
from payflow.services.gateway.routes.security import IS_OPEN, ROLES

# "{number:str}" in Litestar is "{number}" in OpenAPI.
_PATH_TYPE: Final = re.compile(r":[a-z]+}")
_MISSING: Final = inspect.Parameter.empty


@dataclass(frozen=True)
class Input:
    """A parameter in the path, the query or a header. `limits` are JSON Schema keywords besides its type."""

    name: str
    place: str
    type: Any
    is_required: bool
    description: str = ""
    limits: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one address. `roles` None: every signed-in user. `errors`: codes besides those of every route."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    description: str
    answers: dict[int, Answer]
    inputs: tuple[Input, ...] = ()
    body: Any = None
    body_media_types: tuple[str, ...] = (JSON,)
    is_body_optional: bool = False
    errors: tuple[str, ...] = ()
    roles: frozenset[str] | None = None
    is_open: bool = False
    is_limited: bool = True

    @property
    def key(self) -> str:
        """How tables name the operation: "POST /customers/{customer_id}/state"."""
        return f"{self.method} {self.path}"


def operations_of(handler: HTTPRouteHandler) -> list[Operation]:
    """The operations that a handler serves."""
    hints = typing.get_type_hints(handler.fn, include_extras=True)
    opt = handler.opt
    roles = _roles_of(handler)
    key_input = _idempotency_key(opt["idempotency_key"]) if "idempotency_key" in opt else ()
    return [
        Operation(
            method=method,
            path=_PATH_TYPE.sub("}", path),
            name=handler.handler_name,
            tag=(handler.tags or ["Other"])[0],
            summary=handler.summary or "",
            description=plain_text(handler.fn.__doc__),
            answers=_answers_of(handler, hints["return"]),
            inputs=(*_inputs_of(handler, hints), *key_input),
            body=opt.get("body"),
            body_media_types=tuple(opt.get("body_media_types", (JSON,))),
            is_body_optional=bool(opt.get("body_is_optional")),
            errors=tuple(opt.get("errors", ())),
            roles=roles,
            is_open=bool(opt.get(IS_OPEN)),
        )
        for path in sorted(handler.paths)
        for method in sorted(handler.http_methods)
        if method != "OPTIONS"
    ]


def plain_text(docstring: str | None) -> str:
    """A docstring as flowing text, paragraphs kept."""
    paragraphs = inspect.cleandoc(docstring or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def idempotency_key(*, is_required: bool) -> Input:
    """The Idempotency-Key header."""
    return Input(
        "Idempotency-Key",
        "header",
        str,
        is_required,
        "1 to 255 printable ASCII characters, chosen by the client.",
        {"minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    )


def _idempotency_key(said: str) -> tuple[Input, ...]:
    return (idempotency_key(is_required=said == "required"),)


def _roles_of(handler: HTTPRouteHandler) -> frozenset[str] | None:
    said = [guard.roles for guard in handler.guards or () if hasattr(guard, "roles")]
    said += [handler.opt[ROLES]] if ROLES in handler.opt else []
    return None if not said else frozenset.intersection(*(frozenset(roles) for roles in said))


def _answers_of(handler: HTTPRouteHandler, returned: Any) -> dict[int, Answer]:
    said = handler.opt.get("answers")
    if said is not None:
        return {status: answer if isinstance(answer, Answer) else Answer(answer) for status, answer in said.items()}
    if "stream" in handler.opt:
        return {handler.status_code: Answer(str, handler.opt["stream"])}
    if typing.get_origin(returned) is Response:
        (returned,) = typing.get_args(returned)
    return {handler.status_code: Answer(returned)}


def _inputs_of(handler: HTTPRouteHandler, hints: dict[str, Any]) -> list[Input]:
    defaults = inspect.signature(handler.fn).parameters
    return [
        _input(name, hint, kwarg, defaults[name].default)
        for name, hint in hints.items()
        for kwarg in getattr(hint, "__metadata__", ())
        if isinstance(kwarg, ParameterKwarg)
    ]


def _input(name: str, hint: Any, kwarg: ParameterKwarg, default: Any) -> Input:
    place = "path" if isinstance(kwarg, PathParameter) else "header" if isinstance(kwarg, HeaderParameter) else "query"
    kind = typing.get_args(hint)[0]
    limits = {
        keyword: value
        for keyword, value in (
            ("minimum", kwarg.ge),
            ("maximum", kwarg.le),
            ("minLength", kwarg.min_length),
            ("maxLength", kwarg.max_length),
            ("pattern", kwarg.pattern),
            ("default", None if default is _MISSING else default),
        )
        if value is not None
    }
    return Input(kwarg.name or name, place, _without_none(kind), default is _MISSING, kwarg.description or "", limits)


def _without_none(kind: Any) -> Any:
    """A parameter is absent or has a value: null does not travel in an address."""
    parts = [part for part in typing.get_args(kind) if part is not NoneType]
    return parts[0] if len(parts) == 1 and NoneType in typing.get_args(kind) else kind


def has_required_fields(body: Any) -> bool:
    """Whether a body's fields can be missing."""
    kinds = typing.get_args(body) or (body,)
    return any(
        field.required
        for kind in kinds
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct)
        for field in msgspec.structs.fields(kind)
    )
