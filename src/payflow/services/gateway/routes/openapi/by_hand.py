"""The operations that no framework handler serves: the hot payment route, and the health check of the process."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from payflow.contracts.gateway import Role
from payflow.services.gateway.routes.answers import CONFIRM_PATH, OtpRequired, PaymentPending, PaymentSucceeded
from payflow.services.gateway.routes.documented import Answer, OneOf
from payflow.services.gateway.routes.openapi.operations import Operation, idempotency_key
from payflow.services.gateway.routes.payment_confirm import ConfirmBody

Healthy = Literal["healthy", "unhealthy"]


class Health(msgspec.Struct, kw_only=True):
    """Whether payments can be made, and how each dependency is; some are reported only."""

    status: Healthy
    service: str
    dependencies: dict[str, Healthy]
    timestamp: datetime


_CONFIRM: Final = Operation(
    method="POST",
    path=CONFIRM_PATH,
    name="confirm_payment",
    tag="Payments",
    summary="Make a payment",
    description=(
        "Move money from an account of the signed-in customer's, exactly once per Idempotency-Key.\n\n"
        "`to_account` is an account here, an IBAN, or another bank's account number together with `creditor.agent`.\n\n"
        "Where the risk is high the answer is OTP_REQUIRED: send the same request again under the same Idempotency-Key"
        " with the one-time password in `otp`. The answer PENDING (202) means that the payment is under review or at"
        " the other bank; `GET /payments/{transaction_id}` tells how it goes on.\n\n"
        "Send the same request with the same key as often as you like: a final answer, a refusal included, is told"
        " again byte for byte, and OTP_REQUIRED and PENDING are told anew from the present state. 400, 401, 403, 409,"
        " 413, 415, 429 and 503 leave the key free. Another content under a used key is IDEMPOTENCY_KEY_REUSED."
    ),
    answers={
        200: Answer(OneOf(PaymentSucceeded, OtpRequired), description="Made, or in need of a one-time password."),
        202: Answer(
            PaymentPending, description="The payment is under review, at the other bank, or ordered for later."
        ),
    },
    inputs=(idempotency_key(is_required=True),),
    body=ConfirmBody,
    errors=(
        "MISSING_IDEMPOTENCY_KEY",
        "INVALID_IDEMPOTENCY_KEY",
        "ACCOUNT_NOT_OWNED",
        "PAYMENT_IN_PROGRESS",
        "TRANSACTION_EXISTS",
        "IDEMPOTENCY_KEY_REUSED",
        "INVALID_AMOUNT",
        "UNKNOWN_CURRENCY",
        "CURRENCY_MISMATCH",
        "INSUFFICIENT_FUNDS",
        "ACCOUNT_NOT_FOUND",
        "ACCOUNT_CLOSED",
        "ACCOUNT_BLOCKED",
        "SAME_ACCOUNT",
        "CREDITOR_UNREACHABLE",
        "UNKNOWN_AGENT",
        "END_TO_END_ID_TAKEN",
        "INVALID_INSTRUCTION",
        "INVALID_EXECUTION_TIME",
        "INVALID_OTP",
        "OTP_EXPIRED",
        "TOO_MANY_OTPS",
        "PAYMENT_CANCELLED",
        "PAYMENT_EXPIRED",
        "PAYMENT_REFUSED",
    ),
    roles=frozenset({Role.CUSTOMER}),
)

_HEALTH: Final = Operation(
    method="GET",
    path="/health",
    name="get_health",
    tag="Service",
    summary="Health",
    description="Whether payments can be made. Not rate-limited.",
    answers={
        200: Answer(Health, description="Payments can be made."),
        503: Answer(Health, description="A dependency without which no payment can be made is unhealthy."),
    },
    is_open=True,
    is_limited=False,
)

OPERATIONS: Final = (_CONFIRM, _HEALTH)
