"""The ledger's rules. Pure."""

from payflow.services.account.domain.batch import Batch
from payflow.services.account.domain.known import KnownBalances
from payflow.services.account.domain.records import (
    CAPTURED,
    CUSTOMER_NUMBER,
    HELD,
    INTERNAL_KINDS,
    RELEASED,
    STEPS,
    Balance,
    Changes,
    Entry,
    Hold,
    Outcomes,
    Posting,
    Refusal,
    internal_number,
    is_expired,
)

__all__ = [
    "CAPTURED",
    "CUSTOMER_NUMBER",
    "HELD",
    "INTERNAL_KINDS",
    "RELEASED",
    "STEPS",
    "Balance",
    "Batch",
    "Changes",
    "Entry",
    "Hold",
    "KnownBalances",
    "Outcomes",
    "Posting",
    "Refusal",
    "internal_number",
    "is_expired",
]
