"""Decides whom to tell what. Pure: events and codes come in, messages and their deliveries go out.

A message names amounts and masked accounts only. The text of a message with a one-time code is never kept here: such a
message has no body, and its code is handed to a channel in the call that brought it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

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
from payflow.kernel.machine import Machine
from payflow.kernel.money import format_minor

DEFAULT_LANGUAGE: Final = "en"
VALUE_CHARACTERS_MAX: Final = 140
UNKNOWN: Final = "-"


class Kind(StrEnum):
    """What a message is about; each kind has a template in every language."""

    OTP_CODE = "otp_code"
    PAYMENT_COMPLETED = "payment_completed"
    PAYMENT_REJECTED = "payment_rejected"
    PAYMENT_UNDER_REVIEW = "payment_under_review"
    PAYMENT_CANCELLED = "payment_cancelled"
    PAYMENT_EXPIRED = "payment_expired"
    REVIEW_CLEARED = "review_cleared"
    INCOMING_CREDITED = "incoming_credited"
    BULK_COMPLETED = "bulk_completed"
    BULK_CANCELLED = "bulk_cancelled"
    BULK_EXPIRED = "bulk_expired"
    RETURN_RECEIVED = "return_received"
    RETURN_PAID = "return_paid"
    SESSION_ENDED = "session_ended"


class DeliveryState(StrEnum):
    """PENDING is tried again; the other two are final."""

    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


DELIVERY: Final = Machine(
    {
        DeliveryState.PENDING: {DeliveryState.DELIVERED, DeliveryState.FAILED},
        DeliveryState.DELIVERED: set(),
        DeliveryState.FAILED: set(),
    }
)


@dataclass(frozen=True, slots=True)
class Preference:
    """How a customer wants to be written to; no channels means the first one in use."""

    language: str = DEFAULT_LANGUAGE
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """That a customer is to be told something. One message for each pair of `about` and `kind`."""

    kind: Kind
    about: str
    customer_id: str
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Message:
    """A rendered message and the channels it goes out by. `body` is None where it has a code: that is kept nowhere."""

    message_id: UUID
    customer_id: str
    kind: Kind
    about: str
    language: str
    subject: str
    body: str | None
    channels: tuple[str, ...]
    created_at: datetime

    @property
    def has_code(self) -> bool:
        """Whether it is sent by the call that brought it, and never by the background duty."""
        return self.body is None


@dataclass(frozen=True, slots=True)
class Contact:
    """Where a customer can be reached."""

    name: str = field(repr=False)
    email: str | None = field(repr=False)
    phone: str | None = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message on its way out by one channel. `tries` counts this one. `contact` is there if the channel needs it."""

    message_id: UUID
    customer_id: str
    kind: Kind
    subject: str
    body: str = field(repr=False)
    channel: str
    tries: int
    code: str | None = field(default=None, repr=False)
    transaction_id: str | None = None
    expires_at: datetime | None = None
    contact: Contact | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Accepted:
    """The channel took the message: it is delivered as far as we can know."""


@dataclass(frozen=True, slots=True)
class PermanentFailure:
    """The channel will never take this message, for example because there is no such number."""

    reason: str


@dataclass(frozen=True, slots=True)
class TemporaryFailure:
    """The channel did not take it now; a later try may succeed."""

    reason: str


SendResult = Accepted | PermanentFailure | TemporaryFailure


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a try came to. `next_try_at` matters while it is PENDING."""

    message_id: UUID
    channel: str
    state: DeliveryState
    next_try_at: datetime
    ended_at: datetime | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to try again, and when to give up. `lease`: how long a claimed message is left to whoever has it."""

    lease: timedelta = timedelta(seconds=30)
    first_pause: timedelta = timedelta(seconds=5)
    longest_pause: timedelta = timedelta(hours=1)
    tries_max: int = 8

    def pause_after(self, tries: int) -> timedelta:
        """The pause after so many tries: doubled each time, up to the longest."""
        return min(self.first_pause * (1 << min(max(tries - 1, 0), 20)), self.longest_pause)

    def outcome(self, outgoing: Outgoing, result: SendResult, *, now: datetime) -> Outcome:
        """What a channel's answer means for the delivery."""
        state, reason = DeliveryState.DELIVERED, None
        if not isinstance(result, Accepted):
            reason = result.reason
            may_retry = isinstance(result, TemporaryFailure) and outgoing.tries < self.tries_max
            state = DeliveryState.PENDING if may_retry else DeliveryState.FAILED
        is_over = DELIVERY.is_final(state)
        return Outcome(
            message_id=outgoing.message_id,
            channel=outgoing.channel,
            state=state,
            next_try_at=now if is_over else now + self.pause_after(outgoing.tries),
            ended_at=now if is_over else None,
            reason=reason,
        )


def clean(text: str) -> str:
    """A value as it may stand in a message: one line, printable, not endless. Customers choose some of these values,
    and a line break in a subject would begin a new header of an e-mail."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:VALUE_CHARACTERS_MAX]


def channels_for(*, preferred: Sequence[str], in_use: Sequence[str]) -> tuple[str, ...]:
    """The channels a message goes out by: the preferred ones that are in use, else the first one in use."""
    return tuple(name for name in preferred if name in in_use) or tuple(in_use[:1])


def values_of_code(command: SendOtpCode) -> dict[str, str]:
    """What the template of a code may name."""
    return {
        "transaction_id": clean(command.transaction_id),
        "amount": f"{command.amount} {command.currency}",
        "creditor": clean(command.creditor),
        "code": command.code,
        "expires": f"{command.expires_at:%H:%M} UTC",
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
    follows; and why a payment was rejected, for it might name a list or a rule.
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


def _payment_notice(kind: Kind, event: Event) -> Notice:
    payment = msgspec.convert(event.data, PaymentChanged)
    values = {
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
    values = {
        "bulk_id": str(bulk.bulk_id),
        "total": str(bulk.total),
        "made": str(made),
        "waiting": str(waiting),
        "codes": str(codes),
        "unpaid": str(bulk.total - made - waiting - codes),
    }
    return Notice(kind, event.subject, bulk.customer_id, values)


def _return_notices(event: Event) -> list[Notice]:
    made = msgspec.convert(event.data, ReturnChanged)
    values = {
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
    values = {
        "amount": _amount(incoming.amount_minor, incoming.currency),
        "creditor": clean(mask_account(incoming.account)),
        "agent": clean(incoming.agent_bic),
    }
    return Notice(Kind.INCOMING_CREDITED, event.subject, incoming.customer_id, values)


def _amount(amount_minor: int | None, currency: str | None) -> str:
    """A payment that was refused before its account was found has no currency yet."""
    if amount_minor is None or currency is None:
        return UNKNOWN
    return f"{format_minor(amount_minor, currency)} {currency}"
