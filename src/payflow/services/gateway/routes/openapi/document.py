"""Builds the OpenAPI 3.1 document from the routes themselves."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec

import payflow
from payflow.services.gateway.routes.documented import JSON, Answer, Problem
from payflow.services.gateway.routes.openapi.operations import Input, Operation
from payflow.services.gateway.routes.openapi.refusals import codes_of, examples_of, responses_of, share_repeated
from payflow.services.gateway.routes.openapi.schemas import Schemas

_HEADERS: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "RateLimit-Policy": (
        "The tightest limit: its quota and window in seconds.",
        {"type": "string"},
        '"ip";q=100;w=900',
    ),
    "RateLimit": ("What is left of it, and when there is more, in seconds.", {"type": "string"}, '"ip";r=97;t=880'),
    "RateLimit-Limit": ("The tightest limit's quota.", {"type": "integer"}, "100"),
    "RateLimit-Remaining": ("What is left of it.", {"type": "integer"}, "97"),
    "RateLimit-Reset": ("Seconds until the quota is whole again.", {"type": "integer"}, "880"),
    "Retry-After": ("Seconds to wait before asking again, where that is known.", {"type": "integer"}, "1"),
    "WWW-Authenticate": ("The scheme, and what was wrong with the token (RFC 6750).", {"type": "string"}, "Bearer"),
    "traceresponse": (
        "The request's trace (W3C Trace Context).",
        {"type": "string"},
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
    ),
    "Location": (
        "Where to look how it goes on.",
        {"type": "string"},
        "/payments/bulk/019ca1d4-9e44-7d10-9a55-7f0e2f0c9e01",
    ),
    "ETag": ("Send it as If-None-Match to get 304 when nothing has changed.", {"type": "string"}, '"3b0c44298fc1"'),
    "Cache-Control": ("How long the answer may be kept.", {"type": "string"}, "public, max-age=60"),
}
_MEANINGS: Final = {200: "Done.", 201: "Created, or there already with the same contents.", 202: "Accepted."}
_TAGS: Final = {
    "Sign-in": "Tokens and the keys that verify them.",
    "Payments": "A customer's payments.",
    "Accounts": "Balances and statement lines; operators open, block and close.",
    "Messages": "How a customer is written to, and the devices that push messages go to.",
    "Customers": "Customers' records, for operators.",
    "Users": "Who may sign in, for administrators.",
    "Back office": "Everybody's payments, for the bank's own people.",
    "Returns": "Completed payments' money given back, for operators.",
    "Reviews": "Possible sanctions matches, for compliance officers.",
    "Sanctions": "Names and lists, for compliance officers.",
    "KYC": "Customers' verifications.",
    "Banks": "Instructions to and from other banks, for operators.",
    "Webhooks": "Where events are sent to, for operators.",
    "Callbacks": "What vendors of SMS and e-mail tell, signed.",
    "Audit": "The record of everything, for auditors.",
    "Service": "Health and documentation.",
}
_LIMITS: Final = ("RateLimit-Policy", "RateLimit", "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")


def build_document(operations: Sequence[Operation]) -> dict[str, Any]:
    """The OpenAPI document of these operations. Raises ValueError for two operations or types of one name."""
    names = [operation.name for operation in operations]
    doubled = {name for name in names if names.count(name) > 1}
    if doubled:
        raise ValueError(f"several operations have the names {sorted(doubled)}")
    schemas = Schemas()
    schemas.of(Problem)
    examples = _read("examples.json")
    paths: dict[str, dict[str, Any]] = {}
    for operation in sorted(operations, key=lambda operation: operation.path):
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas, examples)
    codes = {code for operation in operations for code in codes_of(operation)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Payflow",
            "version": payflow.__version__,
            "summary": "Payments between accounts and between banks, each moved exactly once.",
            "description": _text("guide.md"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "This instance"}],
        "tags": _tags(operations),
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.components.items())),
            "responses": share_repeated(paths),
            "headers": {name: _header(*said) for name, said in _HEADERS.items()},
            "examples": examples_of(codes),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The `access_token` of `POST /auth/login` (RFC 9068).",
                }
            },
        },
    }


def _tags(operations: Sequence[Operation]) -> list[dict[str, str]]:
    """The tags in the order of a reader's way, those without a description last."""
    used = {operation.tag: "" for operation in operations}
    ordered = [tag for tag in (*_TAGS, *used) if tag in used]
    return [{"name": tag, "description": _TAGS.get(tag, "")} for tag in dict.fromkeys(ordered)]


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(_text(name))
    return found


def _text(name: str) -> str:
    return importlib.resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _header(description: str, schema: dict[str, Any], example: str) -> dict[str, Any]:
    return {"description": description, "schema": schema, "example": int(example) if example.isdigit() else example}


def _operation(operation: Operation, schemas: Schemas, examples: dict[str, Any]) -> dict[str, Any]:
    shown = examples.get(operation.key, {})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": _description(operation),
        "security": [] if operation.is_open else [{"bearer": []}],
        "parameters": [_parameter(one, schemas, examples["parameters"]) for one in operation.inputs],
        "responses": _responses(operation, schemas, shown),
    }
    if operation.body is not None:
        described["requestBody"] = {
            "required": not operation.is_body_optional,
            "content": {kind: _body(operation, kind, schemas, shown) for kind in operation.body_media_types},
        }
    return {name: value for name, value in described.items() if value or name == "security"}


def _body(operation: Operation, kind: str, schemas: Schemas, shown: dict[str, Any]) -> dict[str, Any]:
    """A body of one media type; where there are several, the examples of each are under its name."""
    examples = shown.get("request", {}) if kind == JSON else shown.get("request", {}).get(kind, {})
    content: dict[str, Any] = {"schema": schemas.of(operation.body)}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return content


def _description(operation: Operation) -> str:
    if operation.is_open:
        return operation.description
    roles = "every signed-in user" if operation.roles is None else ", ".join(sorted(operation.roles))
    return f"{operation.description}\n\nFor: {roles}."


def _parameter(one: Input, schemas: Schemas, examples: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "name": one.name,
        "in": one.place,
        "required": one.is_required,
        "schema": schemas.tidy({**schemas.of(one.type), **one.limits}),
    }
    if one.description:
        described["description"] = one.description
    if one.is_required and one.name in examples:
        described["example"] = examples[one.name]
    return described


def _responses(operation: Operation, schemas: Schemas, shown: dict[str, Any]) -> dict[str, Any]:
    def headers(names: Iterable[str]) -> dict[str, Any]:
        all_names = (*names, *(_LIMITS if operation.is_limited else ()), "traceresponse")
        return {name: {"$ref": f"#/components/headers/{name}"} for name in all_names}

    responses = responses_of(operation, headers)
    for status, answer in operation.answers.items():
        described = {
            "description": answer.description or _MEANINGS[status],
            "headers": headers(answer.headers),
        }
        if answer.type is not None:
            described["content"] = {answer.media_type: _content(answer, schemas, shown.get(str(status)))}
        responses[str(status)] = described
    return dict(sorted(responses.items()))


def _content(answer: Answer, schemas: Schemas, examples: dict[str, Any] | None) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": schemas.of(answer.type)}
    if examples:
        content["examples"] = {name: {"value": value} for name, value in examples.items()}
    return content
