"""A bulk order's life, and what its lines come to. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from payflow.contracts.bulk import (
    BulkLine,
    BulkPayment,
    BulkState,
    BulkView,
    DuplicateTransactionId,
    ItemStatus,
)
from payflow.contracts.confirm import ConfirmPayment, PaymentCancelled, PaymentExpired, PaymentState, PaymentView
from payflow.contracts.topics import BulkChanged
from payflow.kernel.errors import Conflict, PayflowError, Rejection
from payflow.kernel.machine import Machine

_S = BulkState

MACHINE: Final = Machine(
    {
        _S.RECEIVING: {_S.PROCESSING, _S.CANCELLING, _S.EXPIRED},
        _S.PROCESSING: {_S.COMPLETED, _S.CANCELLING, _S.EXPIRED},
        _S.CANCELLING: {_S.CANCELLED, _S.COMPLETED},
        _S.COMPLETED: set(),
        _S.CANCELLED: set(),
        _S.EXPIRED: set(),
    }
)
# Until when an order may rest in a state, who sees to it, and what happens by itself (see Care in confirm's domain).
CARE: Final = {
    _S.RECEIVING: ("24 h", "the customer", "expires, and nothing of it is paid"),
    _S.PROCESSING: ("lease, 15 s; 24 h in all", "confirm", "gone on with by any confirm process; the rest expires"),
    _S.CANCELLING: ("lease, 15 s", "confirm", "what was begun is finished, the rest is cancelled"),
}
# What only a file can be refused for, line by line, before anything was done about the line.
_INVALID: Final = frozenset({"MALFORMED_REQUEST", "MISSING_REQUIRED_FIELDS", "FORBIDDEN", DuplicateTransactionId.code})
_OPEN: Final = frozenset({ItemStatus.OTP_REQUIRED, ItemStatus.PENDING})
_STATUS_OF_STATE: Final = {
    PaymentState.COMPLETED: ItemStatus.SUCCESS,
    PaymentState.AWAITING_OTP: ItemStatus.OTP_REQUIRED,
    PaymentState.REJECTED: ItemStatus.REJECTED,
    PaymentState.CANCELLED: ItemStatus.CANCELLED,
    PaymentState.EXPIRED: ItemStatus.EXPIRED,
}
Counts = dict[ItemStatus, int]


@dataclass(frozen=True, slots=True)
class BulkLimits:
    """How long a bulk order may take, and how many a customer may have: that run, and whose file is not whole."""

    lease: timedelta = timedelta(seconds=15)
    pause: timedelta = timedelta(seconds=1)
    upload: timedelta = timedelta(hours=24)
    processing: timedelta = timedelta(hours=24)
    running_per_customer: int = 5
    uploads_per_customer: int = 10


@dataclass(slots=True)
class Order:
    """A bulk order. `stored_to`: the last line that is stored; `started_to`: the last that may have been begun;
    `ran_to`: the last that has a result. Lines are begun in file order, a chunk at a time."""

    bulk_id: UUID
    customer_id: str
    state: BulkState
    version: int
    fencing_token: int
    items: int
    stored_to: int
    started_to: int
    ran_to: int
    columns: list[str] | None
    traceparent: str
    received_at: datetime
    updated_at: datetime
    accepted_at: datetime | None = None
    ended_at: datetime | None = None
    expires_at: datetime | None = None

    @property
    def is_final(self) -> bool:
        """Whether the order has ended."""
        return MACHINE.is_final(self.state)

    def view(self, counts: Counts) -> BulkView:
        """The order as the contract tells it."""
        waiting = self.items - sum(counts.values())
        told = {status: count for status in ItemStatus if (count := counts.get(status, 0))}
        return BulkView(
            bulk_id=self.bulk_id,
            state=self.state,
            total=self.items,
            next_line=self.stored_to + 1,
            counts={ItemStatus.WAITING: waiting, **told} if waiting else told,
            received_at=self.received_at,
            updated_at=self.updated_at,
            accepted_at=self.accepted_at,
            ended_at=self.ended_at,
            expires_at=self.expires_at,
        )

    def change(self, counts: Counts, *, paid_minor: dict[str, int]) -> BulkChanged:
        """What the event about the latest step carries; `paid_minor` by currency."""
        return BulkChanged(
            bulk_id=self.bulk_id,
            customer_id=self.customer_id,
            state=self.state,
            total=self.items,
            counts={status.value: count for status, count in counts.items() if count},
            paid_minor=paid_minor,
        )


@dataclass(slots=True)
class Chunk:
    """Lines that are begun together. Lists have one entry per line; a line has a result when it has a payment id or
    an error code. `open_ids` are the payments that had not ended when they were last counted."""

    first_line: int
    lines: list[int]
    transaction_ids: list[str | None]
    fingerprints: list[bytes]
    error_codes: list[str | None]
    error_details: list[str | None]
    payments: list[BulkPayment | None] = field(default_factory=list)
    payment_ids: list[UUID | None] = field(default_factory=list)
    counts: Counts = field(default_factory=dict)
    open_ids: list[UUID] = field(default_factory=list)

    @property
    def last_line(self) -> int:
        """The last line of the chunk."""
        return self.lines[-1]


def chunk_of(*, first_line: int, lines: Sequence[BulkLine]) -> Chunk:
    """Lines as they are stored, before anything is done about them."""
    chunk = Chunk(
        first_line=first_line,
        lines=[line.line for line in lines],
        transaction_ids=[line.payment.transaction_id if line.payment else line.transaction_id for line in lines],
        fingerprints=[line.fingerprint for line in lines],
        error_codes=[line.error_code for line in lines],
        error_details=[line.error_detail for line in lines],
        payments=[line.payment for line in lines],
    )
    chunk.counts = tally(chunk)
    return chunk


def mark_duplicates(chunk: Chunk, *, earlier: Mapping[int, int]) -> None:
    """Refuse the lines whose transaction_id an earlier line has: `earlier` by line."""
    for index, line in enumerate(chunk.lines):
        if line in earlier and chunk.error_codes[index] is None:
            chunk.error_codes[index] = DuplicateTransactionId.code
            chunk.error_details[index] = f"Line {earlier[line]} of the file has this transaction_id already."
    chunk.counts = tally(chunk)


def key_of(bulk_id: UUID, line: int) -> str:
    """The idempotency key of a line's payment."""
    return f"bulk:{bulk_id}:{line}"


def commands_of(order: Order, chunk: Chunk) -> dict[int, ConfirmPayment]:
    """What is asked of the single payments' use case, by place in the chunk; lines that are refused are left out."""
    return {
        index: ConfirmPayment(
            customer_id=order.customer_id,
            idempotency_key=key_of(order.bulk_id, chunk.lines[index]),
            fingerprint=chunk.fingerprints[index],
            transaction_id=payment.transaction_id,
            amount=payment.amount,
            currency=payment.currency,
            debtor_account=payment.debtor_account,
            creditor_account=payment.creditor_account,
            creditor=payment.creditor,
            remittance_information=payment.remittance_information,
            traceparent=order.traceparent,
            execute_at=payment.execute_at,
            bulk_id=order.bulk_id,
        )
        for index, payment in enumerate(chunk.payments)
        if payment is not None and chunk.error_codes[index] is None
    }


def is_result(answer: PaymentView | PayflowError) -> bool:
    """Whether an answer is the line's result: a payment that rests or has ended, or a refusal of the request itself.

    Anything else (nobody could tell, a process is at work on it) is asked again under the same key.
    """
    if isinstance(answer, PaymentView):
        return answer.state not in (PaymentState.RECEIVED, PaymentState.APPROVED)
    return isinstance(answer, Rejection) or (isinstance(answer, Conflict) and answer.code == "TRANSACTION_EXISTS")


def apply_results(chunk: Chunk, answers: Mapping[int, PaymentView | PayflowError]) -> None:
    """Write the answers into the chunk; each is a result."""
    chunk.payment_ids = [None] * len(chunk.lines)
    states: dict[UUID, PaymentState] = {}
    for index, answer in answers.items():
        if isinstance(answer, PaymentView):
            chunk.payment_ids[index] = answer.payment_id
            states[answer.payment_id] = answer.state
        else:
            chunk.error_codes[index], chunk.error_details[index] = answer.code, answer.detail or None
    chunk.counts = tally(chunk, states)
    chunk.open_ids = [id for id, state in states.items() if status_of_state(state) in _OPEN]


def recount(counts: Counts, states: Mapping[UUID, PaymentState]) -> tuple[Counts, list[UUID]]:
    """A chunk's counts and open payments, from the present states of those that were open."""
    fresh = Counter({status: count for status, count in counts.items() if status not in _OPEN})
    fresh.update(status_of_state(state) for state in states.values())
    return dict(fresh), [id for id, state in states.items() if status_of_state(state) in _OPEN]


def status_of_state(state: PaymentState) -> ItemStatus:
    """The word for a payment's state."""
    return _STATUS_OF_STATE.get(state, ItemStatus.PENDING)


def status_of_error(code: str) -> ItemStatus:
    """The word for a line that never became a payment."""
    if code in _INVALID:
        return ItemStatus.INVALID
    if code == PaymentCancelled.code:
        return ItemStatus.CANCELLED
    return ItemStatus.EXPIRED if code == PaymentExpired.code else ItemStatus.REJECTED


def tally(chunk: Chunk, states: Mapping[UUID, PaymentState] | None = None) -> Counts:
    """How many lines of the chunk have each status; those without a result are not counted."""
    counts: Counter[ItemStatus] = Counter(status_of_error(code) for code in chunk.error_codes if code is not None)
    counts.update(status_of_state(state) for state in (states or {}).values())
    return dict(counts)


@dataclass(frozen=True, slots=True)
class Ending:
    """How an order's remaining lines end when nothing more of it is begun."""

    state: BulkState
    error: PayflowError
    status: ItemStatus


CANCELLED: Final = Ending(
    BulkState.CANCELLED,
    PaymentCancelled("The bulk order was cancelled before this payment was begun."),
    ItemStatus.CANCELLED,
)
EXPIRED: Final = Ending(
    BulkState.EXPIRED,
    PaymentExpired("The bulk order ran out of time before this payment was begun."),
    ItemStatus.EXPIRED,
)


def ending_of(order: Order, chunk: Chunk | None, *, now: datetime) -> Ending | None:
    """How the order is to end instead of going on with `chunk`, its next one; None when it goes on.

    A chunk that may have been begun is finished in any case: a process that was stopped in the middle of it may come
    back, and nothing that was told as cancelled may be paid.
    """
    if order.state is BulkState.RECEIVING:
        return EXPIRED
    if chunk is not None and chunk.first_line <= order.started_to:
        return None
    if order.state is BulkState.CANCELLING:
        return CANCELLED
    return EXPIRED if order.expires_at is not None and now >= order.expires_at else None
