"""Decides whom to tell what. Pure: events and codes come in, notices go out.

A notice names amounts and masked accounts only. No notice says that a payment was made before the event of its end,
which confirm writes together with that end.
"""

from __future__ import annotations

from typing import Final

import msgspec

from payflow.contracts.confirm import PaymentState
from payflow.contracts.notification import SendOtpCode
from payflow.contracts.topics import (
    BulkChanged,
    IncomingPayment,
    PaymentChanged,
    ReturnChanged,
    ReviewDecidedEvent,
    SecurityEvent,
    mask_account,
)
from payflow.kernel.envelope import Event
from payflow.kernel.money import Money
from payflow.services.notification.domain.messages import UNKNOWN, Kind, Notice, Value, clean

_OF_PAYMENT: Final = ("transaction_id", "amount", "debtor", "creditor")
_OF_BULK: Final = ("bulk_id", "total", "made", "paid", "waiting", "codes", "unpaid")
# What the text of each kind may name. A code is named by its own kind's text only, and never in a subject.
VALUES_OF: Final[dict[Kind, tuple[str, ...]]] = {
    Kind.OTP_CODE: ("transaction_id", "amount", "creditor", "code", "expires"),
    Kind.PAYMENT_COMPLETED: _OF_PAYMENT,
    Kind.PAYMENT_REJECTED: _OF_PAYMENT,
    Kind.PAYMENT_UNDER_REVIEW: _OF_PAYMENT,
    Kind.PAYMENT_CANCELLED: _OF_PAYMENT,
    Kind.PAYMENT_EXPIRED: _OF_PAYMENT,
    Kind.REVIEW_CLEARED: (),
    Kind.INCOMING_CREDITED: ("amount", "creditor", "agent"),
    Kind.BULK_COMPLETED: _OF_BULK,
    Kind.BULK_CANCELLED: _OF_BULK,
    Kind.BULK_EXPIRED: _OF_BULK,
    Kind.RETURN_RECEIVED: _OF_PAYMENT,
    Kind.RETURN_PAID: _OF_PAYMENT,
    Kind.SESSION_ENDED: (),
}


def values_of_code(command: SendOtpCode) -> dict[str, Value]:
    """What the template of a code may name. Raises InvalidAmount or UnknownCurrency."""
    return {
        "transaction_id": clean(command.transaction_id),
        "amount": Money.from_decimal(command.amount, command.currency),
        "creditor": clean(command.creditor),
        "code": command.code,
        "expires": command.expires_at,
    }


_PAYMENT_KINDS: Final = {
    "payment.completed": Kind.PAYMENT_COMPLETED,
    "payment.rejected": Kind.PAYMENT_REJECTED,
    "payment.under_review": Kind.PAYMENT_UNDER_REVIEW,
    "payment.cancelled": Kind.PAYMENT_CANCELLED,
    "payment.expired": Kind.PAYMENT_EXPIRED,
}

_BULK_KINDS: Final = {
    "bulk.completed": Kind.BULK_COMPLETED,
    "bulk.cancelled": Kind.BULK_CANCELLED,
    "bulk.expired": Kind.BULK_EXPIRED,
}


def notices_of(event: Event) -> list[Notice]:
    """What customers are told of an event: of a completed return both sides, of anything else one at most.

    Raises msgspec.ValidationError for data of another shape.
    """
    if event.type == "return.completed":
        return _return_notices(event)
    notice = notice_of(event)
    return [] if notice is None else [notice]


def notice_of(event: Event) -> Notice | None:
    """What a customer is told of an event, if anything. Raises msgspec.ValidationError for data of another shape.

    Not told: `payment.awaiting_otp`, for the code itself is the message; a review that blocks, for the rejection
    follows; and why a payment was rejected, for it might name a list or a rule. A payment of a file that ends
    as the file is worked through is counted in the message of the file's end; any other is told of as a single one.
    """
    kind = _PAYMENT_KINDS.get(event.type)
    if kind is not None:
        return _payment_notice(kind, event)
    if event.type in _BULK_KINDS:
        return _bulk_notice(_BULK_KINDS[event.type], event)
    if event.type == "review.decided":
        review = msgspec.convert(event.data, ReviewDecidedEvent)
        return Notice(Kind.REVIEW_CLEARED, event.subject, review.customer_id, {}) if review.is_cleared else None
    if event.type == "incoming.credited":
        return _incoming_notice(event)
    if event.type == "security.refresh_reused":
        security = msgspec.convert(event.data, SecurityEvent)
        # The event's own id: the same thing may happen to the same user again, and is told again.
        return Notice(Kind.SESSION_ENDED, str(event.id), security.customer_id or security.actor, {})
    return None


# How a payment of a file ends as the file is worked through: the message of the file's end has it in its counts.
_COUNTED_BY_ITS_FILE: Final = frozenset({Kind.PAYMENT_COMPLETED, Kind.PAYMENT_REJECTED})


def _payment_notice(kind: Kind, event: Event) -> Notice | None:
    payment = msgspec.convert(event.data, PaymentChanged)
    # One that waited (for a code, a person, its day, another bank) was counted as under way, and is told by itself.
    ended_at_once = payment.path[:1] == [PaymentState.RECEIVED] and kind in _COUNTED_BY_ITS_FILE
    if payment.bulk_id is not None and ended_at_once:
        return None
    values: dict[str, Value] = {
        "transaction_id": clean(payment.transaction_id),
        "amount": _amount(payment.amount_minor, payment.currency),
        "debtor": clean(mask_account(payment.debtor_account)),
        "creditor": clean(mask_account(payment.creditor_account)),
    }
    return Notice(kind, event.subject, payment.customer_id, values)


def _bulk_notice(kind: Kind, event: Event) -> Notice:
    bulk = msgspec.convert(event.data, BulkChanged)
    made = bulk.counts.get("SUCCESS", 0)
    waiting = bulk.counts.get("PENDING", 0)
    codes = bulk.counts.get("OTP_REQUIRED", 0)
    values: dict[str, Value] = {
        "bulk_id": str(bulk.bulk_id),
        "total": bulk.total,
        "made": made,
        "paid": tuple(Money(minor, currency) for currency, minor in sorted(bulk.paid_minor.items())),
        "waiting": waiting,
        "codes": codes,
        "unpaid": bulk.total - made - waiting - codes,
    }
    return Notice(kind, event.subject, bulk.customer_id, values)


def _return_notices(event: Event) -> list[Notice]:
    made = msgspec.convert(event.data, ReturnChanged)
    values: dict[str, Value] = {
        "transaction_id": clean(made.transaction_id),
        "amount": _amount(made.amount_minor, made.currency),
        "debtor": clean(mask_account(made.debtor_account)),
        "creditor": clean(mask_account(made.creditor_account)),
    }
    # Whose payment it was knows it by its transaction_id; who pays back has never seen that.
    return [
        Notice(Kind.RETURN_RECEIVED, event.subject, made.customer_id, values),
        Notice(Kind.RETURN_PAID, event.subject, made.debtor_customer_id, values),
    ]


def _incoming_notice(event: Event) -> Notice | None:
    incoming = msgspec.convert(event.data, IncomingPayment)
    if incoming.customer_id is None:
        return None
    values: dict[str, Value] = {
        "amount": _amount(incoming.amount_minor, incoming.currency),
        "creditor": clean(mask_account(incoming.account)),
        "agent": clean(incoming.agent_bic),
    }
    return Notice(Kind.INCOMING_CREDITED, event.subject, incoming.customer_id, values)


def _amount(amount_minor: int | None, currency: str | None) -> Value:
    """A payment that was refused before its account was found has no currency yet."""
    return UNKNOWN if amount_minor is None or currency is None else Money(amount_minor, currency)
