"""An instruction, outgoing or incoming: its identity, its life, and the text that a message can carry."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final, TypeVar
from uuid import NAMESPACE_OID, UUID, uuid5

from payflow.kernel.machine import Machine

T = TypeVar("T")


class Direction(StrEnum):
    """Which way the money goes."""

    OUTGOING = "OUTGOING"
    INCOMING = "INCOMING"


class Status(StrEnum):
    """An outgoing one's word of the other bank, or ours about an incoming one and what became of its money."""

    UNKNOWN = "UNKNOWN"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    PENDING = "PENDING"
    CREDITED = "CREDITED"
    HELD_IN_SUSPENSE = "HELD_IN_SUSPENSE"
    RETURNING = "RETURNING"
    RETURNED = "RETURNED"


LIFE: Final = Machine(
    {
        Status.UNKNOWN: {Status.ACCEPTED, Status.REJECTED},
        Status.PENDING: {Status.CREDITED, Status.HELD_IN_SUSPENSE, Status.REJECTED},
        Status.ACCEPTED: set[Status](),
        Status.REJECTED: set[Status](),
        Status.CREDITED: set[Status](),
        Status.HELD_IN_SUSPENSE: {Status.CREDITED, Status.RETURNING},
        Status.RETURNING: {Status.RETURNED},
        Status.RETURNED: set[Status](),
    }
)

ID_LENGTH_MAX: Final = 35
NAME_LENGTH_MAX: Final = 140
ACCOUNT_LENGTH_MAX: Final = 34
_IBAN: Final = re.compile(r"[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}")
# What XML 1.0 cannot carry, and line ends, which no name or reference has.
_NOT_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]+")


@dataclass(frozen=True, slots=True)
class Parties:
    """Who pays whom, and what for: kept encrypted."""

    debtor_name: str | None
    debtor_account: str | None
    creditor_name: str | None
    creditor_account: str
    remittance_information: str | None = None


@dataclass(frozen=True, slots=True)
class Instruction:
    """A credit transfer to or from another bank. `message_id` None: it was refused before any message was made."""

    payment_id: UUID
    direction: Direction
    agent_bic: str
    end_to_end_id: str
    message_id: str | None
    instruction_id: str | None
    uetr: str | None
    amount_minor: int
    currency: str
    parties: Parties
    fencing_token: int
    status: Status
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    reason_code: str | None = None
    is_suspicious: bool | None = None
    attempts: int = 0
    answered_at: datetime | None = None
    is_answer_delivered: bool = False

    @property
    def is_final(self) -> bool:
        """Whether the bank's word has been given, or incoming money is where it stays."""
        return LIFE.is_final(self.status)


def uetr_of(payment_id: UUID) -> str:
    """The payment's UETR: the same for every message about it. UETRs have the form of a UUIDv4."""
    digest = hashlib.sha256(b"uetr" + payment_id.bytes).digest()
    return str(UUID(bytes=digest[:16], version=4))


def incoming_payment_id(*, agent_bic: str, end_to_end_id: str) -> UUID:
    """The identity of money that came in: one per sending bank and end-to-end id."""
    return uuid5(NAMESPACE_OID, f"payflow:incoming:{agent_bic}:{end_to_end_id}")


def message_id_of(id: UUID) -> str:
    """A message id from a fresh identifier."""
    return f"PF{id.hex}"


def plain_text(text: str | None, *, length_max: int = NAME_LENGTH_MAX) -> str | None:
    """Text as a message can carry it: without control characters, cut to length; None where none is left."""
    if text is None:
        return None
    return " ".join(_NOT_TEXT.sub(" ", text).split())[:length_max] or None


def account_number(text: str) -> str:
    """An account number as it travels: IBANs without blanks and in capitals, other numbers as given."""
    compact = "".join(text.split()).upper()
    return compact if is_iban(compact) else text.strip()


def is_iban(number: str) -> bool:
    """Whether this has the form and the check digits of an IBAN (ISO 13616: modulo 97)."""
    if _IBAN.fullmatch(number) is None:
        return False
    return int("".join(str(int(digit, 36)) for digit in number[4:] + number[:4])) % 97 == 1


def same_bank(bic: str | None, other: str) -> bool:
    """Whether two BICs name the same bank: BIC8 and BIC11 with branch XXX do."""
    if bic is None:
        return False
    return bic.upper().ljust(11, "X") == other.upper().ljust(11, "X")


def in_chunks(things: Sequence[T], size: int) -> list[list[T]]:
    """Consecutive parts of at most `size`."""
    return [list(things[start : start + size]) for start in range(0, len(things), size)]
