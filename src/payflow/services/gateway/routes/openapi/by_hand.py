"""The operations that no framework handler serves: the hot payment route, and the health check of the process."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from payflow.contracts.bulk import ITEMS_MAX
from payflow.contracts.gateway import Role
from payflow.services.gateway.routes.answers import CONFIRM_PATH, OtpRequired, PaymentPending, PaymentSucceeded
from payflow.services.gateway.routes.bulk import BULK_PATH, BulkOrder
from payflow.services.gateway.routes.bulk_upload import FORMATS
from payflow.services.gateway.routes.documented import Answer, OneOf
from payflow.services.gateway.routes.openapi.operations import Input, Operation, idempotency_key
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
        "`to_account` is an account here, an IBAN (also in groups of four), or another bank's account number together"
        " with `creditor.agent`.\n\n"
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

_BULK: Final = Operation(
    method="POST",
    path=BULK_PATH,
    name="upload_bulk",
    tag="Payments",
    summary="Make the payments of a file",
    description=(
        "A file of up to 100,000 payments, at most 64 MB, under one Idempotency-Key. Each line of JSON is the body of"
        " `POST /payment/confirm` (without `otp`; `customer_id` may be left out); CSV has a header line with the same"
        " names, and `creditor_name`, `creditor_country`, `creditor_agent`; a cell has no line breaks.\n\n"
        "A line that is no payment is a result of its own and keeps no other back. The answer comes when the file is"
        " whole; only then its payments are begun, in file order, through the same checks as single ones. CSV of which"
        " a cell has a line break, or a line's quotes can be read in two ways, is refused as a whole: `line` says"
        " where.\n\n"
        "An upload that was cut is sent again under the same key, from its beginning or, with the header Upload-Line,"
        " from the line `next_line` on; a CSV file's header line is not sent again then. Another file under a used key"
        " is IDEMPOTENCY_KEY_REUSED. A file that is not whole after 24 hours expires, and nothing of it is paid.\n\n"
        "A file is whole where the body ends. Say with Upload-Items how many payments it has, and one that was cut"
        " before it was sent is refused with UPLOAD_INCOMPLETE.\n\n"
        "What refuses an upload names its order in `bulk_id`, once there is one: with the first lines that are stored,"
        " or at once with Upload-Line. A file that is refused before (its body stands still within the first lines, or"
        " its Content-Length is too large) has none from this upload. A file that is too large is refused for good, and"
        " its order, if it has one, is cancelled. A customer may have so many orders that run and, apart from these, so"
        " many whose file is not whole: TOO_MANY_BULKS has both numbers, and `GET /payments/bulk` lists the orders."
    ),
    answers={
        200: Answer(BulkOrder, description="The same file again, and its order has ended.", headers=("Location",)),
        202: Answer(BulkOrder, description="The file is whole and its payments are begun.", headers=("Location",)),
    },
    inputs=(
        idempotency_key(is_required=True),
        Input(
            "Upload-Line",
            "header",
            int,
            False,
            "The number of the file's line that the body begins with; 1 where it is left out.",
            {"minimum": 1, "default": 1},
        ),
        Input(
            "Upload-Items",
            "header",
            int,
            False,
            "How many payments the whole file has. Where it turns out to have another number, nothing of it begins.",
            {"minimum": 1, "maximum": ITEMS_MAX},
        ),
    ),
    body=str,
    body_media_types=tuple(FORMATS),
    errors=(
        "MISSING_IDEMPOTENCY_KEY",
        "INVALID_IDEMPOTENCY_KEY",
        "MISSING_REQUIRED_FIELDS",
        "REQUEST_TIMEOUT",
        "BULK_NOT_FOUND",
        "UPLOAD_GAP",
        "UPLOAD_INCOMPLETE",
        "BULK_ENDED",
        "TOO_MANY_ITEMS",
        "TOO_MANY_BULKS",
        "IDEMPOTENCY_KEY_REUSED",
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

OPERATIONS: Final = (_CONFIRM, _BULK, _HEALTH)
