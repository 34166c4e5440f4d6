"""Messages to customers: what they are about, in which words' values, and by which ways they may go.

The text of a message with a one-time code is never kept here: such a message has no texts, and its code is handed to a
channel in the call that brought it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple, TypeAlias
from uuid import UUID

from payflow.kernel.money import Money

DEFAULT_LANGUAGE: Final = "en"
VALUE_CHARACTERS_MAX: Final = 140
UNKNOWN: Final = "-"
# E.164: a plus sign, and up to fifteen digits that begin with the country's.
_PHONE_DIGITS_MIN, _PHONE_DIGITS_MAX = 8, 15

# What a text may name. Money and instants are written as the customer's language has it.
Value: TypeAlias = str | int | Money | tuple[Money, ...] | datetime


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


@dataclass(frozen=True, slots=True)
class Preference:
    """How a customer wants to be written to; no channels means the installation's."""

    language: str = DEFAULT_LANGUAGE
    channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notice:
    """That a customer is to be told something. One message for each pair of `about` and `kind`."""

    kind: Kind
    about: str
    customer_id: str
    values: Mapping[str, Value]


class Texts(NamedTuple):
    """A message in words: `short` for what shows little (SMS, push), `subject` and `body` for a letter."""

    subject: str
    short: str
    body: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message and the ways it may go. `short` and `body` are None where it has a code: that is kept nowhere."""

    message_id: UUID
    customer_id: str
    kind: Kind
    about: str
    language: str
    subject: str
    short: str | None
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
class Ways:
    """The channels in use, in the installation's order. `by_default`: those for a customer who prefers none."""

    in_use: tuple[str, ...]
    by_default: tuple[str, ...]

    def for_customer(self, preferred: Sequence[str]) -> tuple[str, ...]:
        """The channels that a message may go by, in the order in which they are tried: the next one when one fails."""
        return tuple(name for name in preferred if name in self.in_use) or self.by_default


def clean(text: str) -> str:
    """A value as it may stand in a message: one line, printable, not endless. Customers choose some of these values,
    and a line break in a subject would begin a new header of an e-mail."""
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:VALUE_CHARACTERS_MAX]


def international_number(phone: str | None) -> str | None:
    """A phone number as networks take it (E.164: "+31205550100"), from how people write it ("+31 20 555 0100", "0031
    (20) 5550100"). None for one without its country, for guessing the country would write to a stranger."""
    digits = "".join(character for character in phone or "" if character in "0123456789")
    if (phone or "").lstrip().startswith("+"):
        number = digits
    elif digits.startswith("00"):
        number = digits[2:]
    else:
        return None
    is_number = _PHONE_DIGITS_MIN <= len(number) <= _PHONE_DIGITS_MAX and not number.startswith("0")
    return f"+{number}" if is_number else None
