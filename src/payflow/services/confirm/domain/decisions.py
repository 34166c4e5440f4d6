"""What is decided about a payment: whether a request becomes one, what a repeat is told, why one ends. Pure."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from payflow.contracts.account import PartiesResolved
from payflow.contracts.confirm import (
    ConfirmPayment,
    CreditorNameRequired,
    InvalidExecutionTime,
    KeyReused,
    PaymentCancelled,
    PaymentExpired,
    PaymentInProgress,
    PaymentRefused,
    PaymentState,
    TransactionExists,
)
from payflow.contracts.risk import Assessed
from payflow.kernel.errors import PayflowError, Rejection
from payflow.kernel.money import CurrencyMismatch, Money
from payflow.services.confirm.domain.payment import Payment, Transition
from payflow.services.confirm.domain.states import Deadlines

_S = PaymentState


def receive(
    command: ConfirmPayment,
    *,
    payment_id: UUID,
    parties: PartiesResolved | PayflowError,
    now: datetime,
    deadlines: Deadlines,
) -> Payment:
    """A new payment: leased to this process, or refused at once when it can never be made."""
    payment = Payment(
        payment_id=payment_id,
        customer_id=command.customer_id,
        idempotency_key=command.idempotency_key,
        fingerprint=command.fingerprint,
        transaction_id=command.transaction_id,
        amount=command.amount,
        currency=command.currency,
        debtor_account=command.debtor_account,
        creditor_account=command.creditor_account,
        creditor=command.creditor,
        remittance_information=command.remittance_information,
        traceparent=command.traceparent,
        received_at=now,
        updated_at=now,
        version=1,
        leased_until=now + deadlines.lease,
        due_at=now + deadlines.lease,
        execute_at=command.execute_at,
        bulk_id=command.bulk_id,
    )
    payment.transitions.append(Transition(1, None, _S.RECEIVED, now, None))
    refusal = _accept(payment, parties) or _wrong_time(payment, now=now, deadlines=deadlines)
    if refusal is not None:
        payment.end(_S.REJECTED, now=now, error=refusal)
    return payment


def _accept(payment: Payment, parties: PartiesResolved | PayflowError) -> PayflowError | None:
    """Fix the parties and the amount; or the reason why the payment can never be made."""
    if isinstance(parties, PayflowError):
        return parties
    debtor, creditor, external = parties.debtor, parties.creditor, parties.external
    if external is not None and not _has_creditor_name(payment):
        return CreditorNameRequired()
    if payment.currency is not None and payment.currency != debtor.currency:
        return CurrencyMismatch(f"The account is in {debtor.currency}, the payment in {payment.currency}.")
    if creditor is not None and creditor.currency != debtor.currency:
        return CurrencyMismatch(f"The accounts are in {debtor.currency} and {creditor.currency}.")
    try:
        money = Money.from_decimal(payment.amount, debtor.currency)
    except Rejection as error:
        return error
    payment.amount_minor, payment.currency = money.minor_units, money.currency
    payment.debtor_account_id = debtor.account_id
    payment.creditor_account_id = creditor.account_id if creditor else None
    payment.agent_bic = external.agent_bic if external else None
    payment.parties = parties
    return None


def _wrong_time(payment: Payment, *, now: datetime, deadlines: Deadlines) -> PayflowError | None:
    if payment.execute_at is None:
        return None
    if payment.execute_at <= now:
        return InvalidExecutionTime("execute_at is not in the future.")
    if payment.execute_at > now + deadlines.execute_ahead:
        return InvalidExecutionTime(f"execute_at is more than {deadlines.execute_ahead.days} days ahead.")
    return None


def _has_creditor_name(payment: Payment) -> bool:
    return payment.creditor is not None and bool(payment.creditor.name.strip())


def party_names(payment: Payment) -> list[str]:
    """All names to screen: both owners', and the creditor's as the customer gave it."""
    if payment.parties is None:
        raise ValueError("the payment's parties are not resolved")
    if payment.parties.creditor is None and not _has_creditor_name(payment):
        raise ValueError("nobody knows the creditor's name, so nobody can screen it")
    names = [payment.parties.debtor.name]
    if payment.parties.creditor is not None:
        names.append(payment.parties.creditor.name)
    if payment.creditor is not None:
        names.append(payment.creditor.name)
    return names


def apply_assessment(payment: Payment, assessed: Assessed) -> None:
    """Take over what risk found."""
    payment.risk_level = assessed.level.value
    payment.needs_otp = assessed.needs_otp
    payment.review_id = assessed.review_id


def answer_to_repeat(payment: Payment, command: ConfirmPayment, *, now: datetime) -> PayflowError | None:
    """Why a repeated request gets no answer from this payment, or None when it may have one.

    KeyReused for other content, TransactionExists under another key, PaymentInProgress while a process works on it.
    """
    if payment.idempotency_key != command.idempotency_key:
        return TransactionExists()
    if payment.fingerprint != command.fingerprint:
        return KeyReused()
    # At the other bank a payment is told as pending, also while its answer is being waited for.
    if not payment.is_final and payment.state is not _S.SUBMITTED and payment.is_leased(now):
        return PaymentInProgress(retry_after_s=1)
    return None


def expiry_error(state: PaymentState) -> PayflowError:
    """What a customer is told about a payment that ran out of time in this state."""
    reasons = {
        _S.SCHEDULED: "it could not be made on its day",
        _S.AWAITING_OTP: "no valid one-time password came",
        _S.UNDER_REVIEW: "no decision was made",
    }
    what = reasons.get(state, "it could not be made")
    return PaymentExpired(f"The payment has expired: {what} in time.")


def refusal_on_its_day(payment: Payment, assessed: Assessed) -> PayflowError | None:
    """Why a payment is not made although its order was accepted: it would need more proof of its customer now."""
    if assessed.needs_otp and not payment.needs_otp:
        return PaymentRefused("The payment was refused on its day: the customer is not identified as well any more.")
    return None


def cancelled_error() -> PayflowError:
    """What a repeat of a cancelled payment is told."""
    return PaymentCancelled("The payment was cancelled by the customer.")


def ended_error(how: str) -> PayflowError:
    """What a customer is told about a payment whose end reached the ledger and was not stored here.

    `how` is the reason that was given with the release: the name of the state that it was to end in.
    """
    if how == _S.CANCELLED.lower():
        return cancelled_error()
    if how == _S.EXPIRED.lower():
        return PaymentExpired("The payment has expired: it was not made in time.")
    return PaymentRefused("The payment was refused before it was made.")
