"""ISO 20022 messages between banks: pacs.008 (pay), pacs.002 (what became of it), pacs.028 (what became of it?),
pacs.004 (take it back)."""

from payflow.services.partner_bank.rails.iso20022.build import (
    build_credit_transfers,
    build_returns,
    build_status_request,
    build_statuses,
)
from payflow.services.partner_bank.rails.iso20022.messages import (
    CreditTransfer,
    CreditTransferMessage,
    Header,
    PaymentReturn,
    PaymentReturnMessage,
    StatusMessage,
    StatusQuery,
    StatusRequestMessage,
    TransactionStatus,
)
from payflow.services.partner_bank.rails.iso20022.read import Message, UnreadableMessage, read_message

__all__ = [
    "CreditTransfer",
    "CreditTransferMessage",
    "Header",
    "Message",
    "PaymentReturn",
    "PaymentReturnMessage",
    "StatusMessage",
    "StatusQuery",
    "StatusRequestMessage",
    "TransactionStatus",
    "UnreadableMessage",
    "build_credit_transfers",
    "build_returns",
    "build_status_request",
    "build_statuses",
    "read_message",
]
