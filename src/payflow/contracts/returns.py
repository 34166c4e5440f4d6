"""Returns, answered by the confirm service: a completed payment's money goes back, by a new payment linked to it.

As in ISO 20022 (pacs.004) a return is a payment of its own, from the original's creditor to its debtor, of the whole
amount or a part. All returns of a payment together never come to more than it was.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Conflict, Rejection


class ReturnState(StrEnum):
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    APPROVED = "APPROVED"
    UNDER_REVIEW = "UNDER_REVIEW"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    DECLINED = "DECLINED"
    EXPIRED = "EXPIRED"


class ReturnReason(StrEnum):
    """Why money goes back: codes of ISO 20022's ExternalReturnReason1Code that fit a payment between accounts here."""

    INVALID_CREDITOR_ACCOUNT = "AC03"
    CLOSED_ACCOUNT = "AC04"
    BLOCKED_ACCOUNT = "AC06"
    DUPLICATION = "AM05"
    WRONG_AMOUNT = "AM09"
    UNRECOGNISED_INITIATING_PARTY = "BE05"
    REQUESTED_BY_CUSTOMER = "CUST"
    FOLLOWING_CANCELLATION_REQUEST = "FOCR"
    FRAUD = "FR01"
    REFUND_REQUEST_BY_END_CUSTOMER = "MD06"
    NOT_SPECIFIED_BY_CUSTOMER = "MS02"
    NOT_SPECIFIED_BY_BANK = "MS03"
    NARRATIVE = "NARR"
    REGULATORY = "RR04"


class ReturnNotFound(Rejection):
    """No such return."""

    code = "RETURN_NOT_FOUND"


class NotReturnable(Conflict):
    """Only a completed payment can be returned."""

    code = "NOT_RETURNABLE"


class ReturnNotPossible(Rejection):
    """The money has left for another bank: only that bank can return it, and it is asked to by a recall (camt.056)."""

    code = "RETURN_NOT_POSSIBLE"


class ReturnExceedsPayment(Rejection):
    """All returns of a payment together may not come to more than the payment was."""

    code = "RETURN_EXCEEDS_PAYMENT"


class ReturnOwnPayment(Rejection):
    """Nobody returns a payment, or decides about its return, who is one of its two customers."""

    code = "RETURN_OWN_PAYMENT"


class FourEyesRequired(Rejection):
    """Another person than the one who asked for it must decide about it: for the return, or for its end."""

    code = "FOUR_EYES_REQUIRED"


class ReturnDecided(Conflict):
    """The return does not wait for a decision, or was decided otherwise."""

    code = "RETURN_ALREADY_DECIDED"


class RequestReturn(msgspec.Struct, frozen=True, kw_only=True):
    """Return a completed payment, whole or in part. `amount` is a plain decimal; None: all that is left of it.

    `idempotency_key` is the requester's own: the same again is answered with the same return. `fingerprint` is a hash
    over the parsed values. `officer_customer_id`: the requester's own customer id, if they are also a customer.
    """

    payment_id: UUID
    idempotency_key: str
    fingerprint: bytes
    reason_code: ReturnReason
    requested_by: str
    amount: str | None = None
    note: str | None = None
    officer_customer_id: str | None = None
    traceparent: str = ""


class DecideReturn(msgspec.Struct, frozen=True, kw_only=True):
    """Approve or decline a return that waits for a second person."""

    return_id: UUID
    is_approved: bool
    decided_by: str
    officer_customer_id: str | None = None


class GetReturn(msgspec.Struct, frozen=True, kw_only=True):
    return_id: UUID


class ListReturns(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first, after `cursor` (the last return id seen): of one payment, or of all."""

    payment_id: UUID | None = None
    state: ReturnState | None = None
    cursor: UUID | None = None
    limit: int = 50


class ReturnView(msgspec.Struct, frozen=True, kw_only=True):
    """A return as it stands. `return_id` is its own payment id in the ledger, `payment_id` the original's.

    `debtor_account` is the account that pays the money back: the original's creditor's. `needs_approval`: it is above
    the limit up to which one person returns money alone; `decided_by` is then the second one.
    """

    return_id: UUID
    payment_id: UUID
    state: ReturnState
    version: int
    amount_minor: int
    currency: str
    debtor_account: str
    creditor_account: str
    reason_code: ReturnReason
    note: str | None
    needs_approval: bool
    requested_by: str
    decided_by: str | None
    error_code: str | None
    error_detail: str | None
    requested_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None


class ReturnPage(msgspec.Struct, frozen=True, kw_only=True):
    returns: list[ReturnView]
    next_cursor: UUID | None


class Returns(Protocol):
    """Operations on returns, of the confirm service."""

    service: ClassVar[str] = "confirm"

    @operation(callers={"gateway"}, timeout_s=10)
    async def request_return(self, commands: list[RequestReturn]) -> Answers[ReturnView]: ...

    @operation(callers={"gateway"}, timeout_s=10)
    async def decide_return(self, commands: list[DecideReturn]) -> Answers[ReturnView]: ...

    @operation(callers={"gateway", "cli"})
    async def get_returns(self, queries: list[GetReturn]) -> Answers[ReturnView]: ...

    @operation(callers={"gateway", "cli"})
    async def list_returns(self, queries: list[ListReturns]) -> Answers[ReturnPage]: ...
