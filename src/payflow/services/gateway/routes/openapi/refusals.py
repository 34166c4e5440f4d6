"""The refusals of a route: those that every route has, those of its kind, and its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final
from uuid import UUID

import msgspec

from payflow.contracts.problems import PROBLEMS
from payflow.services.gateway.routes.openapi.operations import Operation, has_required_fields

PROBLEM: Final = "application/problem+json"
_EVERYWHERE: Final = ("MALFORMED_REQUEST", "INTERNAL_ERROR")
_LIMITED: Final = ("RATE_LIMITED", "SERVICE_UNAVAILABLE", "OVERLOADED", "DEADLINE_EXCEEDED", "UNKNOWN_OUTCOME")
_SIGNED_IN: Final = ("ACCESS_TOKEN_REQUIRED", "INVALID_TOKEN", "TOKEN_REVOKED")
_WITH_BODY: Final = ("PAYLOAD_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE")
# Members that a refusal has beside the standard ones.
_FURTHER: Final[dict[str, dict[str, Any]]] = {
    "MISSING_REQUIRED_FIELDS": {
        "detail": "Required fields are missing: amount, to_account.",
        "missing_fields": ["amount", "to_account"],
    },
    "PAYLOAD_TOO_LARGE": {"limit_bytes": 65536},
    "RATE_LIMITED": {"retry_after_s": 42},
    "TOO_MANY_OTPS": {"retry_after_s": 42},
    "PAYMENT_IN_PROGRESS": {"retry_after_s": 1},
    "SERVICE_UNAVAILABLE": {"retry_after_s": 1},
    "OVERLOADED": {"retry_after_s": 1},
    "DEADLINE_EXCEEDED": {"retry_after_s": 1},
    "INVALID_OTP": {"tries_left": 4},
}
_HEADERS_OF: Final = {
    401: ("WWW-Authenticate",),
    409: ("Retry-After",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}


def codes_of(operation: Operation) -> list[str]:
    """Every error code that an operation may answer, by status and then in the table's order."""
    codes = {*_EVERYWHERE, *operation.errors}
    if operation.is_limited:
        codes.update(_LIMITED)
    if not operation.is_open:
        codes.update(_SIGNED_IN)
    if operation.roles is not None:
        codes.add("FORBIDDEN")
    if any(one.place == "path" and one.type is UUID for one in operation.inputs):
        codes.add("NOT_FOUND")  # what is no id there is no address either
    if operation.body is not None:
        codes.update(_WITH_BODY)
        if has_required_fields(operation.body) and not operation.is_body_optional:
            codes.add("MISSING_REQUIRED_FIELDS")
    return [code for code in PROBLEMS if code in codes]


def responses_of(operation: Operation, headers_of: Any) -> dict[str, Any]:
    """The responses of an operation that are refusals, by status."""
    by_status: dict[int, list[str]] = {}
    for code in codes_of(operation):
        by_status.setdefault(PROBLEMS[code].status, []).append(code)
    return {
        str(status): {
            "description": " or ".join(f"`{code}`" for code in codes),
            "headers": headers_of(_HEADERS_OF.get(status, ())),
            "content": {
                PROBLEM: {
                    "schema": {"$ref": "#/components/schemas/Problem"},
                    "examples": {code: {"$ref": f"#/components/examples/{code}"} for code in codes},
                }
            },
        }
        for status, codes in sorted(by_status.items())
    }


def share_repeated(paths: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Replace refusals that several operations have by references; returns what they refer to, by name."""
    places: dict[bytes, list[tuple[dict[str, Any], str]]] = {}
    for operation in (operation for methods in paths.values() for operation in methods.values()):
        for status, response in operation["responses"].items():
            if PROBLEM in response.get("content", {}):
                places.setdefault(msgspec.json.encode(response), []).append((operation["responses"], status))
    shared: dict[str, Any] = {}
    for encoded, found in places.items():
        if len(found) > 1:
            response = msgspec.json.decode(encoded)
            name = "-".join([found[0][1], *response["content"][PROBLEM]["examples"]])
            shared[name] = response
            for responses, status in found:
                responses[status] = {"$ref": f"#/components/responses/{name}"}
    return dict(sorted(shared.items()))


def examples_of(codes: Iterable[str]) -> dict[str, Any]:
    """An example of each code's problem."""
    return {code: {"summary": PROBLEMS[code].title, "value": _example(code)} for code in sorted(codes)}


def _example(code: str) -> dict[str, Any]:
    problem = PROBLEMS[code]
    return {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": problem.detail,
        "instance": "/payment/confirm",
        "error": code,
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        **_FURTHER.get(code, {}),
    }
