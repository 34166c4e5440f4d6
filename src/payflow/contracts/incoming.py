"""The account service's commands for money from other banks."""

from __future__ import annotations

import hashlib
from uuid import UUID

import msgspec


class CreditIncoming(msgspec.Struct, frozen=True, kw_only=True):
    """Credit money that came in from another bank, once per `payment_id` (derived from its end-to-end id).

    `fencing_token` rises with each process that takes the payment up. A refusal is kept: a repeat is told the same.
    The default is for one release: the one before sends none while an update runs.
    """

    payment_id: UUID
    fencing_token: int = 0
    creditor_account: str
    amount_minor: int
    currency: str
    agent_bic: str
    to_suspense: bool = False


def suspense_exit_id(payment_id: UUID) -> UUID:
    """The id under which an incoming payment's money leaves the suspense account, whichever way: it leaves once.

    A UUID of version 8 (RFC 9562, 5.8): the ledger takes those of version 7 for ids of payments made at their time.
    """
    digest = hashlib.sha256(b"payflow:suspense:" + str(payment_id).encode()).hexdigest()
    return UUID(f"{digest[:12]}8{digest[13:16]}8{digest[17:32]}")


class CreditFromSuspense(msgspec.Struct, frozen=True, kw_only=True):
    """Credit incoming money that waits on the suspense account to its creditor, now that it may be.

    Booked under `suspense_exit_id(payment_id)`, once. A refusal is kept: a repeat is told the same.
    """

    payment_id: UUID
    fencing_token: int
    creditor_account: str
    amount_minor: int
    currency: str


class ReturnFromSuspense(msgspec.Struct, frozen=True, kw_only=True):
    """Book incoming money that waits on the suspense account back to the bank that sent it, which has taken it back.

    Booked under `suspense_exit_id(payment_id)`, once: AlreadyBooked where it went to the creditor.
    """

    payment_id: UUID
    fencing_token: int
    agent_bic: str
    amount_minor: int
    currency: str
