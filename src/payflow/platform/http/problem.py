"""Errors as RFC 9457 problem details: the only bridge from an error to an HTTP answer."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from payflow.contracts.problems import ProblemType, problem_for
from payflow.kernel.errors import PayflowError
from payflow.platform.http.asgi import Headers, Response

PROBLEM_JSON: Final = b"application/problem+json"

# An error's `extra` may add members, never replace these.
_STANDARD_MEMBERS: Final = frozenset({"type", "title", "status", "detail", "instance", "error", "trace_id"})
_BARE_CHALLENGE: Final = b"Bearer"
# RFC 6750, section 3: error codes only where credentials were sent, and only from its list.
_CHALLENGES: Final = {
    "INVALID_TOKEN": b'Bearer error="invalid_token", error_description="The access token is not valid or has expired"',
    "TOKEN_REVOKED": b'Bearer error="invalid_token", error_description="The access token was revoked"',
}
_BY_STATUS: Final = {
    400: "MALFORMED_REQUEST",
    401: "ACCESS_TOKEN_REQUIRED",
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
    408: "REQUEST_TIMEOUT",
    413: "PAYLOAD_TOO_LARGE",
    415: "UNSUPPORTED_MEDIA_TYPE",
    422: "VALIDATION_FAILED",
    429: "RATE_LIMITED",
    431: "HEADERS_TOO_LARGE",
    503: "SERVICE_UNAVAILABLE",
}

_encode: Final = msgspec.json.Encoder().encode


def problem_response(error: BaseException, *, instance: str, trace_id: str) -> Response:
    """The answer to a request that ended in `error`: (status, headers, body).

    `instance` is the path of the request. A PayflowError shows its code, detail and extra members; anything else is a
    bug and shows nothing but INTERNAL_ERROR and the trace id. Headers that the status calls for are added: Retry-After
    from `extra["retry_after_s"]`, WWW-Authenticate with 401, Allow from `extra["allow"]`.
    """
    if not isinstance(error, PayflowError) or is_bug(error):
        return _response(problem_for("INTERNAL_ERROR"), "", {}, instance, trace_id)
    return _response(problem_for(error.code), error.detail, error.extra, instance, trace_id)


def is_bug(error: PayflowError) -> bool:
    """Whether the error's code has no row of its own in the table: then its detail is not for customers either."""
    return problem_for(error.code).code == "INTERNAL_ERROR"


def problem_for_status(status: int, *, instance: str, trace_id: str) -> Response:
    """The plain problem of an HTTP status, for answers that a framework gave without saying more."""
    problem = problem_for(_BY_STATUS.get(status, "MALFORMED_REQUEST" if status < 500 else "INTERNAL_ERROR"))
    return _response(problem, "", {}, instance, trace_id)


def _response(problem: ProblemType, detail: str, extra: dict[str, Any], instance: str, trace_id: str) -> Response:
    members: dict[str, Any] = {
        "type": problem.type,
        "title": problem.title,
        "status": problem.status,
        "detail": detail or problem.detail,
        "instance": instance,
        "error": problem.code,
        "trace_id": trace_id,
    }
    members.update((name, value) for name, value in extra.items() if name not in _STANDARD_MEMBERS)
    body = _encode(members)
    headers: Headers = [(b"content-type", PROBLEM_JSON), (b"content-length", b"%d" % len(body))]
    if problem.status == 401:
        headers.append((b"www-authenticate", _CHALLENGES.get(problem.code, _BARE_CHALLENGE)))
    if "retry_after_s" in extra:
        headers.append((b"retry-after", b"%d" % max(1, int(extra["retry_after_s"]))))
    if problem.status == 405:
        headers.append((b"allow", ", ".join(extra.get("allow", ())).encode("ascii")))
    return Response(problem.status, headers, body)
