"""The messages between banks as values: what is built into XML and read from it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from payflow.services.partner_bank.rails.iso20022.names import PACS_008


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
class PaymentReturn:
    """One transaction of a pacs.004: a settled credit transfer that goes back whole. `reason_code` says why (ISO)."""

    return_id: str
    end_to_end_id: str
    uetr: str | None
    amount: str
    currency: str
    reason_code: str


@dataclass(frozen=True, slots=True)
class PaymentReturnMessage:
    """pacs.004: take these back."""

    header: Header
    transactions: list[PaymentReturn]


@dataclass(frozen=True, slots=True)
class TransactionStatus:
    """One transaction of a pacs.002. `status` is the ISO transaction status (ACSC, RJCT, PDNG, ...), `original_name`
    the kind of message in which it was sent; it is told together with the original message's id, or not at all."""

    original_message_id: str | None
    instruction_id: str | None
    end_to_end_id: str | None
    uetr: str | None
    status: str | None
    reason_code: str | None = None
    original_name: str | None = None


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """pacs.002: what became of these."""

    header: Header
    transactions: list[TransactionStatus]


@dataclass(frozen=True, slots=True)
class StatusQuery:
    """One transaction of a pacs.028: the ids under which it was sent, and the kind of message in which it was.

    Of a return `instruction_id` is the return's own id, the others are the returned payment's.
    """

    original_message_id: str | None
    instruction_id: str | None
    end_to_end_id: str | None
    uetr: str | None
    original_name: str = PACS_008


@dataclass(frozen=True, slots=True)
class StatusRequestMessage:
    """pacs.028: what became of these?"""

    header: Header
    transactions: list[StatusQuery]
