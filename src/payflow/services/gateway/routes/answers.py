"""A payment as its customer is told of it. Every answer to `POST /payment/confirm` is made of the stored payment alone:
no present time, no trace of this request, so that a repeat is told the same, byte for byte."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal

import msgspec

from payflow.contracts.confirm import PaymentInProgress, PaymentState, PaymentView
from payflow.contracts.problems import problem_for
from payflow.kernel.errors import error_from_parts
from payflow.kernel.money import format_minor
from payflow.platform.http.asgi import Response, json_response
from payflow.platform.http.problem import problem_response

CONFIRM_PATH: Final = "/payment/confirm"
_encode: Final = msgspec.json.Encoder().encode

_OTP_MESSAGE: Final = (
    "A one-time password was sent to you. Send the same request again with the same Idempotency-Key and otp."
)
# What a customer may know of a payment that is not at its end; who looks at it and why is not among it.
_PENDING: Final = {
    PaymentState.UNDER_REVIEW: "The payment is under review.",
    PaymentState.SCHEDULED: "The payment will be made at execute_at.",
    PaymentState.HELD: "The payment is on its way to the other bank.",
    PaymentState.SUBMITTED: "The payment is at the other bank, or on its way there.",
}
_REFUSED: Final = {
    PaymentState.REJECTED: "PAYMENT_REFUSED",
    PaymentState.CANCELLED: "PAYMENT_CANCELLED",
    PaymentState.EXPIRED: "PAYMENT_EXPIRED",
}


class PaymentSucceeded(msgspec.Struct, kw_only=True):
    """The money has moved. `amount` is a JSON number with exactly the currency's decimals."""

    status: Literal["SUCCESS"] = "SUCCESS"
    transaction_id: str
    reference: str | None
    amount: msgspec.Raw
    confirmed_at: datetime | None
    risk_level: str | None


class OtpRequired(msgspec.Struct, kw_only=True):
    """The payment waits for a one-time password until `expires_at`, for 15 minutes. A password is valid for five; after
    that the same request without `otp` sends a new one."""

    status: Literal["OTP_REQUIRED"] = "OTP_REQUIRED"
    message: str = _OTP_MESSAGE
    transaction_id: str
    risk_level: str | None
    expires_at: datetime | None


class PaymentPending(msgspec.Struct, kw_only=True):
    """The payment is under review, at the other bank, or to be made at `execute_at`; ask again by
    `GET /payments/{transaction_id}`."""

    status: Literal["PENDING"] = "PENDING"
    transaction_id: str
    reason: str
    execute_at: datetime | msgspec.UnsetType = msgspec.UNSET


def confirm_answer(payment: PaymentView) -> Response:
    """The answer that a payment's state gives. Raises PaymentInProgress where a process is at work on it."""
    match payment.state:
        case PaymentState.COMPLETED:
            return json_response(200, _encode(_succeeded(payment)))
        case PaymentState.AWAITING_OTP:
            return json_response(200, _encode(_otp_required(payment)))
        case PaymentState.UNDER_REVIEW | PaymentState.SCHEDULED | PaymentState.HELD | PaymentState.SUBMITTED:
            pending = PaymentPending(
                transaction_id=payment.transaction_id,
                reason=_PENDING[payment.state],
                execute_at=payment.execute_at or msgspec.UNSET,
            )
            return json_response(202, _encode(pending))
        case PaymentState.REJECTED | PaymentState.CANCELLED | PaymentState.EXPIRED:
            code = payment.error_code or _REFUSED[payment.state]
            refusal = error_from_parts(family="rejection", code=code, detail=payment.error_detail or "", extra={})
            return problem_response(refusal, instance=CONFIRM_PATH, trace_id=payment.trace_id)
        case _:
            raise PaymentInProgress(retry_after_s=1)


def _succeeded(payment: PaymentView) -> PaymentSucceeded:
    return PaymentSucceeded(
        transaction_id=payment.transaction_id,
        reference=payment.reference,
        amount=msgspec.Raw(amount_text(payment).encode("ascii")),
        confirmed_at=payment.completed_at,
        risk_level=payment.risk_level,
    )


def _otp_required(payment: PaymentView) -> OtpRequired:
    return OtpRequired(
        transaction_id=payment.transaction_id, risk_level=payment.risk_level, expires_at=payment.expires_at
    )


def amount_text(payment: PaymentView) -> str:
    """The amount with exactly the currency's decimals; as it was sent, where the currency never became known."""
    if payment.amount_minor is None or payment.currency is None:
        return payment.amount
    return format_minor(payment.amount_minor, payment.currency)


class Payment(msgspec.Struct, kw_only=True):
    """A payment. `status` is the word of `POST /payment/confirm`, `state` the step of its life; `amount` is a decimal
    as text. Where it was refused before its amount was read, `amount` is the text that was sent, whatever it is, and
    `currency` the one that was sent, or null. `error` and `detail` tell why it was refused; `returned_amount` is what
    has come back of a completed one, null where nothing has. `expires_at` is the payment's deadline, not that of a
    one-time password, which is valid for five minutes."""

    payment_id: str
    transaction_id: str
    customer_id: str
    status: str
    state: PaymentState
    amount: str
    currency: str | None
    from_account: str
    to_account: str
    creditor_name: str | None
    remittance_information: str | None
    risk_level: str | None
    reference: str | None
    reason: str | None
    error: str | None
    detail: str | None
    created_at: datetime
    updated_at: datetime
    confirmed_at: datetime | None
    expires_at: datetime | None
    execute_at: datetime | None
    bulk_id: str | None
    returned_amount: str | None


_STATUS: Final = {
    PaymentState.COMPLETED: "SUCCESS",
    PaymentState.AWAITING_OTP: "OTP_REQUIRED",
    PaymentState.REJECTED: "REJECTED",
    PaymentState.CANCELLED: "CANCELLED",
    PaymentState.EXPIRED: "EXPIRED",
}


def _detail(payment: PaymentView) -> str | None:
    if payment.error_code is None:
        return None
    return payment.error_detail or problem_for(payment.error_code).detail


def _returned(payment: PaymentView) -> str | None:
    if not payment.returned_minor or payment.currency is None:
        return None
    return format_minor(payment.returned_minor, payment.currency)


def payment_body(payment: PaymentView) -> Payment:
    """A payment as the newer routes tell it."""
    return Payment(
        payment_id=str(payment.payment_id),
        transaction_id=payment.transaction_id,
        customer_id=payment.customer_id,
        status=_STATUS.get(payment.state, "PENDING"),
        state=payment.state,
        amount=amount_text(payment),
        currency=payment.currency,
        from_account=payment.debtor_account,
        to_account=payment.creditor_account,
        creditor_name=payment.creditor_name,
        remittance_information=payment.remittance_information,
        risk_level=payment.risk_level,
        reference=payment.reference,
        reason=_PENDING.get(payment.state),
        error=payment.error_code,
        detail=_detail(payment),
        created_at=payment.received_at,
        updated_at=payment.updated_at,
        confirmed_at=payment.completed_at,
        expires_at=payment.expires_at,
        execute_at=payment.execute_at,
        bulk_id=None if payment.bulk_id is None else str(payment.bulk_id),
        returned_amount=_returned(payment),
    )
