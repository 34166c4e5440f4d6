"""Errors as RFC 9457 problems."""

from __future__ import annotations

import json
from typing import Any

import pytest

from payflow.contracts.gateway import AccessTokenRequired, InvalidCredentials, InvalidToken, TokenRevoked
from payflow.contracts.problems import PROBLEMS
from payflow.kernel.errors import PayflowError, Rejection, Unavailable, error_from_parts
from payflow.platform.http.errors import MethodNotAllowed, MissingRequiredFields, PayloadTooLarge
from payflow.platform.http.problem import problem_for_status, problem_response

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


def answer(error: BaseException) -> tuple[int, dict[str, str], dict[str, Any]]:
    status, headers, body = problem_response(error, instance="/payment/confirm", trace_id=TRACE_ID)
    assert b'": ' not in body
    return status, {name.decode(): value.decode() for name, value in headers}, json.loads(body)


def test_a_problem_has_the_promised_members_and_the_errors_own() -> None:
    status, headers, document = answer(MissingRequiredFields(missing_fields=["amount", "to_account"]))

    assert status == 400
    assert headers["content-type"] == "application/problem+json"
    assert document == {
        "type": PROBLEMS["MISSING_REQUIRED_FIELDS"].type,
        "title": "Missing required fields",
        "status": 400,
        "detail": "Required fields are missing: amount, to_account.",
        "instance": "/payment/confirm",
        "error": "MISSING_REQUIRED_FIELDS",
        "trace_id": TRACE_ID,
        "missing_fields": ["amount", "to_account"],
    }


def test_an_error_without_detail_shows_its_types_detail() -> None:
    _, _, document = answer(InvalidCredentials())

    assert document["detail"] == PROBLEMS["INVALID_CREDENTIALS"].detail


def test_extra_members_never_replace_the_standard_ones() -> None:
    error = error_from_parts(
        family="rejection", code="INVALID_AMOUNT", detail="No.", extra={"status": 200, "error": "x", "trace_id": "y"}
    )

    status, _, document = answer(error)

    assert (status, document["status"], document["error"], document["trace_id"]) == (
        422,
        422,
        "INVALID_AMOUNT",
        TRACE_ID,
    )


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("secret"),
        PayflowError("secret"),
        error_from_parts(family="rejection", code="NOT_IN_THE_TABLE", detail="secret", extra={"key": "secret"}),
    ],
)
def test_what_is_not_in_the_table_shows_nothing(error: BaseException) -> None:
    status, _, document = answer(error)

    assert (status, document["error"]) == (500, "INTERNAL_ERROR")
    assert "secret" not in json.dumps(document)


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (AccessTokenRequired(), "Bearer"),
        (InvalidCredentials(), "Bearer"),
        (InvalidToken(), 'Bearer error="invalid_token"'),
        (TokenRevoked(), 'Bearer error="invalid_token"'),
    ],
)
def test_a_401_names_the_scheme_and_an_error_only_where_a_token_was_sent(error: Rejection, challenge: str) -> None:
    status, headers, _ = answer(error)

    assert status == 401
    assert headers["www-authenticate"].split(",")[0] == challenge


def test_retry_after_and_allow_come_from_the_error() -> None:
    _, unavailable, _ = answer(Unavailable("Later.", retry_after_s=3))
    _, at_once, _ = answer(Unavailable("Later.", retry_after_s=0))
    _, wrong_method, _ = answer(MethodNotAllowed(allow=["POST", "GET"]))
    _, too_large, document = answer(PayloadTooLarge(limit_bytes=65536))

    assert unavailable["retry-after"] == "3"
    assert at_once["retry-after"] == "1"
    assert wrong_method["allow"] == "GET, POST"
    assert "retry-after" not in too_large
    assert document["detail"] == "The body is larger than 64 KB."


@pytest.mark.parametrize(
    ("status", "code"), [(404, "NOT_FOUND"), (415, "UNSUPPORTED_MEDIA_TYPE"), (418, "MALFORMED_REQUEST"), (502, None)]
)
def test_a_frameworks_status_has_a_problem_too(status: int, code: str | None) -> None:
    response = problem_for_status(status, instance="/", trace_id=TRACE_ID)

    assert json.loads(response.body)["error"] == (code or "INTERNAL_ERROR")
