"""The confirm service: payments from the customer's request to their end state."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.contracts.sides import ListSides, SidesList
from payflow.kernel.errors import Conflict, Rejection


class PaymentState(StrEnum):
    RECEIVED = "RECEIVED"
    UNDER_REVIEW = "UNDER_REVIEW"
    AWAITING_OTP = "AWAITING_OTP"
    APPROVED = "APPROVED"
    SCHEDULED = "SCHEDULED"
    HELD = "HELD"
    SUBMITTED = "SUBMITTED"
    COMPLETED = "COMPLETED"
    REJECTED = "REJECTED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class KeyReused(Rejection):
    """The idempotency key was used with other content."""

    code = "IDEMPOTENCY_KEY_REUSED"


class PaymentInProgress(Conflict):
    """A process is working on this payment right now."""

    code = "PAYMENT_IN_PROGRESS"


class TransactionExists(Conflict):
    """The customer has a payment with this transaction_id under another key."""

    code = "TRANSACTION_EXISTS"


class PaymentNotFound(Rejection):
    """No such payment of this customer."""

    code = "PAYMENT_NOT_FOUND"


class NotCancellable(Conflict):
    """The payment is past the point where the customer can cancel it."""

    code = "NOT_CANCELLABLE"


class CreditorNameRequired(Rejection):
    """An account at another bank has no owner that we know: without the creditor's name nobody could be screened."""

    code = "CREDITOR_NAME_REQUIRED"


class PaymentCancelled(Rejection):
    """The payment was cancelled."""

    code = "PAYMENT_CANCELLED"


class PaymentExpired(Rejection):
    """The payment was not completed in time: no valid one-time password, or no review decision."""

    code = "PAYMENT_EXPIRED"


class PaymentRefused(Rejection):
    """Refused after review, or by the other bank, without telling which list or rule."""

    code = "PAYMENT_REFUSED"


class InvalidExecutionTime(Rejection):
    """`execute_at` is in the past, or further ahead than payments can be ordered."""

    code = "INVALID_EXECUTION_TIME"


class Creditor(msgspec.Struct, frozen=True, kw_only=True):
    """The creditor as the customer names it; the name is screened as given."""

    name: str
    country: str | None = None
    agent: str | None = None


class ConfirmPayment(msgspec.Struct, frozen=True, kw_only=True):
    """One customer's payment request. `amount` is the plain decimal as given; the currency's decimals decide later.

    `fingerprint` is a hash over the parsed values without `otp`; `otp` is the code the customer typed, if any.
    `execute_at`: the payment is ordered now, with all its checks, and made then. `bulk_id`: of a payment of a file, its
    order; only confirm's own work on files sets it.
    """

    customer_id: str
    idempotency_key: str
    fingerprint: bytes
    transaction_id: str
    amount: str
    currency: str | None
    debtor_account: str
    creditor_account: str
    creditor: Creditor | None = None
    remittance_information: str | None = None
    otp: str | None = None
    traceparent: str = ""
    execute_at: datetime | None = None
    bulk_id: UUID | None = None


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """A payment as it stands. `error_code`/`error_detail` tell a refusal; `reason` why it is pending or ended.

    `currency` and `amount_minor` are None until the debtor's account was found.
    """

    payment_id: UUID
    transaction_id: str
    customer_id: str
    state: PaymentState
    version: int
    amount: str
    amount_minor: int | None
    currency: str | None
    debtor_account: str
    creditor_account: str
    risk_level: str | None
    reference: str | None
    reason: str | None
    error_code: str | None
    error_detail: str | None
    received_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None
    creditor_name: str | None = None
    remittance_information: str | None = None
    # Of the request that made the payment: a stored answer is told again byte for byte, its trace id included.
    trace_id: str = ""
    execute_at: datetime | None = None
    bulk_id: UUID | None = None
    # What has come back of it by completed returns; told by `get`, `history` and `list_payments` alone.
    returned_minor: int = 0


class SendCode(msgspec.Struct, frozen=True, kw_only=True):
    """Have the one-time password of a payment that waits for it sent, or show the open challenge."""

    payment_id: UUID


class GetPayment(msgspec.Struct, frozen=True, kw_only=True):
    """By the customer's own transaction_id, or (operators, `customer_id` None) by payment id as text."""

    transaction_id: str
    customer_id: str | None


class ListPayments(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first, after `cursor` (the last payment id seen). `customer_id` None lists everybody's (operators).

    `fresh_as_of`: what was committed up to then must be in it, later changes may be missing; None: nothing may.
    """

    customer_id: str | None
    cursor: UUID | None = None
    limit: int = 50
    state: PaymentState | None = None
    fresh_as_of: datetime | None = None


class AwaitEnd(msgspec.Struct, frozen=True, kw_only=True):
    """Wait for a payment at the other bank to end, at most `wait_s` seconds, then tell how it stands."""

    payment_id: UUID
    wait_s: float


class PaymentPage(msgspec.Struct, frozen=True, kw_only=True):
    payments: list[PaymentView]
    next_cursor: UUID | None


class CancelPayment(msgspec.Struct, frozen=True, kw_only=True):
    customer_id: str
    transaction_id: str


class TransitionView(msgspec.Struct, frozen=True, kw_only=True):
    """One step of a payment's life."""

    version: int
    source: PaymentState | None
    target: PaymentState
    at: datetime
    reason: str | None


class PaymentHistory(msgspec.Struct, frozen=True, kw_only=True):
    payment: PaymentView
    transitions: list[TransitionView]


class DecideReview(msgspec.Struct, frozen=True, kw_only=True):
    """A compliance officer's decision about a payment UNDER_REVIEW, passed on by ofac."""

    payment_id: UUID
    is_cleared: bool
    decided_by: str


class RecordBankAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The other bank's late word about a SUBMITTED payment, passed on by partner_bank."""

    payment_id: UUID
    is_accepted: bool
    reason_code: str | None = None


_TELLS: Final = ("state", "version", "risk_level", "error_code", "currency")
# Somebody looks at these afterwards, and wants to see how it came about.
_KEEPS: Final = {"state": frozenset({PaymentState.UNDER_REVIEW})}


class Confirm(Protocol):
    """Operations of the confirm service."""

    service: ClassVar[str] = "confirm"

    @operation(callers={"gateway"}, timeout_s=10, calls_in_flight=2, tells=_TELLS, keeps=_KEEPS)
    async def confirm(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]: ...

    # Apart from the others, and with more calls under way: a slow one-time password delays nobody else's payment.
    @operation(callers={"gateway"}, timeout_s=10, calls_in_flight=32, tells=_TELLS, keeps=_KEEPS)
    async def confirm_with_otp(self, commands: list[ConfirmPayment]) -> Answers[PaymentView]: ...

    @operation(callers={"gateway"}, timeout_s=8, calls_in_flight=32, tells=_TELLS)
    async def send_codes(self, commands: list[SendCode]) -> Answers[PaymentView]: ...

    @operation(callers={"gateway"}, timeout_s=10, calls_in_flight=64, tells=_TELLS)
    async def await_end(self, queries: list[AwaitEnd]) -> Answers[PaymentView]: ...

    @operation(callers={"gateway", "cli", "partner_bank", "ofac"})
    async def get(self, queries: list[GetPayment]) -> Answers[PaymentView]: ...

    @operation(callers={"gateway", "cli"})
    async def history(self, queries: list[GetPayment]) -> Answers[PaymentHistory]: ...

    @operation(callers={"gateway", "cli"})
    async def list_payments(self, queries: list[ListPayments]) -> Answers[PaymentPage]: ...

    # Few pages to a call, and not waited for long: a statement is told without it rather than late.
    @operation(callers={"gateway"}, timeout_s=2, batch_max=4)
    async def list_sides(self, queries: list[ListSides]) -> Answers[SidesList]: ...

    @operation(callers={"gateway"}, timeout_s=10, tells=_TELLS)
    async def cancel(self, commands: list[CancelPayment]) -> Answers[PaymentView]: ...

    @operation(callers={"ofac"}, timeout_s=10, tells=_TELLS)
    async def decide_review(self, commands: list[DecideReview]) -> Answers[PaymentView]: ...

    @operation(callers={"partner_bank"}, timeout_s=10, tells=_TELLS)
    async def record_bank_answer(self, commands: list[RecordBankAnswer]) -> Answers[PaymentView]: ...
