"""What other services are asked about a payment."""

from __future__ import annotations

from datetime import datetime

from payflow.contracts.account import PlaceHold, ReleaseHold, Transfer
from payflow.contracts.confirm import PaymentState
from payflow.contracts.otp import OtpPayment
from payflow.contracts.risk import AssessPayment
from payflow.services.confirm.domain import Payment, party_names


def assessment_of(payment: Payment) -> AssessPayment:
    """What risk is asked about a payment."""
    return AssessPayment(
        payment_id=payment.payment_id,
        customer_id=payment.customer_id,
        amount_minor=payment.money.minor_units,
        currency=payment.money.currency,
        debtor=payment.debtor_account,
        creditor=payment.creditor_reference,
        party_names=party_names(payment),
        creditor_country=payment.creditor.country if payment.creditor else None,
    )


def hold_of(payment: Payment, *, expires_at: datetime | None) -> PlaceHold:
    """Its funds, reserved; `expires_at` None: for as long as it takes."""
    if payment.debtor_account_id is None:
        raise ValueError("the payment's debtor account was never found")
    return PlaceHold(
        payment_id=payment.payment_id,
        fencing_token=payment.fencing_token,
        account_id=payment.debtor_account_id,
        amount_minor=payment.money.minor_units,
        currency=payment.money.currency,
        expires_at=expires_at,
    )


def release_of(payment: Payment, target: PaymentState) -> ReleaseHold:
    """The end of its funds without a booking, because it ends in this state."""
    return ReleaseHold(
        payment_id=payment.payment_id,
        fencing_token=payment.fencing_token,
        reason=target.value.lower(),
        account_id=payment.debtor_account_id,
    )


def otp_payment_of(payment: Payment) -> OtpPayment:
    """What a one-time password is bound to."""
    return OtpPayment(
        payment_id=payment.payment_id,
        customer_id=payment.customer_id,
        amount_minor=payment.money.minor_units,
        currency=payment.money.currency,
        debtor=payment.debtor_account,
        creditor=payment.creditor_reference,
    )


def transfer_of(payment: Payment) -> Transfer:
    """Its booking between two accounts here."""
    if payment.debtor_account_id is None or payment.creditor_account_id is None:
        raise ValueError("the payment's accounts were never found")
    return Transfer(
        payment_id=payment.payment_id,
        fencing_token=payment.fencing_token,
        debtor_account_id=payment.debtor_account_id,
        creditor_account_id=payment.creditor_account_id,
        amount_minor=payment.money.minor_units,
        currency=payment.money.currency,
        captures_hold=payment.has_hold,
    )
