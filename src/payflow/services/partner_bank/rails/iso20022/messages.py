"""The messages between banks as values: what is built into XML and read from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Header:
    """A message's own identity and its two banks."""

    message_id: str
    created_at: datetime
    instructing_bic: str | None
    instructed_bic: str | None


@dataclass(frozen=True, slots=True)
class CreditTransfer:
    """One transaction of a pacs.008. `amount` is the plain decimal of `currency`."""

    instruction_id: str | None
    end_to_end_id: str
    transaction_id: str | None
    uetr: str | None
    amount: str
    currency: str
    debtor_name: str | None
    debtor_account: str | None
    debtor_agent_bic: str | None
    creditor_name: str | None
    creditor_account: str | None
    creditor_agent_bic: str | None
    remittance_information: str | None = None


@dataclass(frozen=True, slots=True)
class CreditTransferMessage:
    """pacs.008: pay these."""

    header: Header
    transactions: list[CreditTransfer]


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """One transaction of a pacs.002. `status` is the ISO transaction status (ACSC, RJCT, PDNG, ...)."""

    original_message_id: str | None
    instruction_id: str | None
    end_to_end_id: str | None
    uetr: str | None
    status: str | None
    reason_code: str | None = None


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """pacs.002: what became of these. `original_name` is the kind of message in which they were sent."""

    header: Header
    transactions: list[TransactionStatus]
    original_name: str = "pacs.008.001.08"


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """One transaction of a pacs.028: the ids under which it was sent."""

    original_message_id: str | None
    instruction_id: str | None
    end_to_end_id: str | None
    uetr: str | None


@dataclass(frozen=True, slots=True)
class StatusRequestMessage:
    """pacs.028: what became of these?"""

    header: Header
    transactions: list[StatusQuery]
