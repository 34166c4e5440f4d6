"""A return's life: its states, who may ask for it and decide about it, and how much of a payment may go back. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from payflow.contracts.account import PartiesResolved
from payflow.contracts.confirm import KeyReused, PaymentExpired, PaymentState
from payflow.contracts.returns import (
    DecideReturn,
    FourEyesRequired,
    NotReturnable,
    RequestReturn,
    ReturnDecided,
    ReturnExceedsPayment,
    ReturnNotPossible,
    ReturnOwnPayment,
    ReturnReason,
    ReturnState,
    ReturnView,
)
from payflow.contracts.topics import ReturnChanged, mask_account
from payflow.kernel.errors import PayflowError, Rejection
from payflow.kernel.four_eyes import FourEyes
from payflow.kernel.machine import Machine
from payflow.kernel.money import Money, format_minor
from payflow.services.confirm.domain.payment import Payment
from payflow.services.confirm.domain.states import Care

_S = ReturnState

RETURN_MACHINE: Final = Machine(
    {
        _S.AWAITING_APPROVAL: {_S.APPROVED, _S.DECLINED, _S.EXPIRED},
        _S.APPROVED: {_S.UNDER_REVIEW, _S.COMPLETED, _S.REJECTED, _S.EXPIRED},
        _S.UNDER_REVIEW: {_S.APPROVED, _S.REJECTED, _S.EXPIRED},
        _S.COMPLETED: set(),
        _S.REJECTED: set(),
        _S.DECLINED: set(),
        _S.EXPIRED: set(),
    }
)
RETURN_BEGINNINGS: Final = frozenset({_S.AWAITING_APPROVAL, _S.APPROVED})
# A return that ended so has moved nothing, and what it had taken of the original can be returned by another.
RETURN_REFUSED: Final = frozenset({_S.REJECTED, _S.DECLINED, _S.EXPIRED})
RETURN_CARE: Final = {
    _S.AWAITING_APPROVAL: Care("72 h", "operators", "expires"),
    _S.APPROVED: Care("lease, 10 s", "confirm", "made by any confirm process, tried again for 24 h, then it expires"),
    _S.UNDER_REVIEW: Care("72 h", "compliance", "expires"),
}


@dataclass(frozen=True, slots=True)
class ReturnDeadlines:
    """How long a return may rest in a state; `late`: for how long an approved one is tried before it is ended."""

    lease: timedelta = timedelta(seconds=10)
    approval: timedelta = timedelta(hours=72)
    review: timedelta = timedelta(hours=72)
    late: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class ReturnStep:
    """One step of a return's life, and who took it: a person's user name, or None for the service itself."""

    version: int
    source: ReturnState | None
    target: ReturnState
    at: datetime
    reason: str | None = None
    taken_by: str | None = None


@dataclass(slots=True)
class ReturnPayment:
    """A return as the use cases work on it. `steps` are those taken since it was last stored.

    The debtor of the return is the original's creditor, who pays back; its creditor is the original's debtor.
    """

    return_id: UUID
    payment_id: UUID
    transaction_id: str
    idempotency_key: str
    fingerprint: bytes
    amount_minor: int
    currency: str
    debtor_customer_id: str
    debtor_account: str
    debtor_account_id: UUID
    creditor_customer_id: str
    creditor_account: str
    creditor_account_id: UUID
    reason_code: ReturnReason
    note: str | None
    needs_approval: bool
    requested_by: str
    traceparent: str
    requested_at: datetime
    updated_at: datetime
    state: ReturnState = _S.APPROVED
    version: int = 1
    fencing_token: int = 1
    leased_until: datetime | None = None
    due_at: datetime | None = None
    decided_by: str | None = None
    review_id: UUID | None = None
    error_code: str | None = None
    error_detail: str | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    steps: list[ReturnStep] = field(default_factory=list)

    @property
    def is_final(self) -> bool:
        """Whether the return has ended."""
        return RETURN_MACHINE.is_final(self.state)

    @property
    def customers(self) -> frozenset[str]:
        """The customers on both sides."""
        return frozenset({self.debtor_customer_id, self.creditor_customer_id})

    def move(
        self, target: ReturnState, *, now: datetime, reason: str | None = None, taken_by: str | None = None
    ) -> None:
        """Take one step. Raises IllegalTransition."""
        RETURN_MACHINE.check(self.state, target)
        self.version += 1
        self.steps.append(ReturnStep(self.version, self.state, target, now, reason, taken_by))
        self.state, self.updated_at = target, now

    def approve(self, *, now: datetime, taken_by: str) -> None:
        """A person lets it go on: no deadline counts any more, the lease says when to look again."""
        self.move(_S.APPROVED, now=now, taken_by=taken_by)
        self.due_at, self.expires_at = self.leased_until, None

    def review(self, review_id: UUID | None, *, now: datetime, deadlines: ReturnDeadlines) -> None:
        """A possible sanctions match: it waits for a compliance officer."""
        self.move(_S.UNDER_REVIEW, now=now)
        self.review_id = review_id
        self.leased_until, self.due_at, self.expires_at = None, now + deadlines.review, now + deadlines.review

    def complete(self, *, now: datetime) -> None:
        """The money has moved."""
        if self.state is _S.UNDER_REVIEW:
            self.move(_S.APPROVED, now=now)
        self.move(_S.COMPLETED, now=now)
        self.completed_at = now
        self.leased_until = self.due_at = self.expires_at = None

    def end(self, target: ReturnState, *, now: datetime, error: PayflowError, taken_by: str | None = None) -> None:
        """End without moving anything."""
        self.move(target, now=now, reason=error.code, taken_by=taken_by)
        self.leased_until = self.due_at = self.expires_at = None
        self.error_code, self.error_detail = error.code, error.detail

    def is_overdue(self, *, now: datetime, deadlines: ReturnDeadlines) -> bool:
        """Whether an approved return could not be made for so long that it is to be ended."""
        return self.state is _S.APPROVED and now - self.updated_at >= deadlines.late

    def view(self) -> ReturnView:
        """The return as the contract tells it."""
        return ReturnView(
            return_id=self.return_id,
            payment_id=self.payment_id,
            state=self.state,
            version=self.version,
            amount_minor=self.amount_minor,
            currency=self.currency,
            debtor_account=self.debtor_account,
            creditor_account=self.creditor_account,
            reason_code=self.reason_code,
            note=self.note,
            needs_approval=self.needs_approval,
            requested_by=self.requested_by,
            decided_by=self.decided_by,
            error_code=self.error_code,
            error_detail=self.error_detail,
            requested_at=self.requested_at,
            updated_at=self.updated_at,
            completed_at=self.completed_at,
            expires_at=self.expires_at,
        )

    def change(self) -> ReturnChanged:
        """What the event about the latest step carries."""
        return ReturnChanged(
            return_id=self.return_id,
            payment_id=self.payment_id,
            transaction_id=self.transaction_id,
            customer_id=self.creditor_customer_id,
            debtor_customer_id=self.debtor_customer_id,
            state=self.state,
            amount_minor=self.amount_minor,
            currency=self.currency,
            debtor_account=mask_account(self.debtor_account),
            creditor_account=mask_account(self.creditor_account),
            reason_code=self.reason_code,
            requested_by=self.requested_by,
            decided_by=self.decided_by,
            error_code=self.error_code,
            at=self.updated_at,
        )


def receive_return(
    command: RequestReturn,
    *,
    return_id: UUID,
    original: Payment,
    parties: PartiesResolved,
    taken_minor: int,
    four_eyes: FourEyes,
    now: datetime,
    deadlines: ReturnDeadlines,
) -> ReturnPayment | PayflowError:
    """A new return, leased to this process or waiting for a second person; or why there can be none.

    `taken_minor`: what all returns of the original come to already, refused ones left out.
    """
    if parties.creditor is None or original.creditor_account_id is None:
        return left_this_bank()
    if command.officer_customer_id in (parties.debtor.customer_id, parties.creditor.customer_id):
        return ReturnOwnPayment()
    amount = _amount_of(command, original.money, taken_minor)
    if isinstance(amount, PayflowError):
        return amount
    needs_approval = four_eyes.asks(taken_minor + amount, original.money.currency)
    state = _S.AWAITING_APPROVAL if needs_approval else _S.APPROVED
    due_at = now + (deadlines.approval if needs_approval else deadlines.lease)
    made = ReturnPayment(
        return_id=return_id,
        payment_id=original.payment_id,
        transaction_id=original.transaction_id,
        idempotency_key=command.idempotency_key,
        fingerprint=command.fingerprint,
        amount_minor=amount,
        currency=original.money.currency,
        debtor_customer_id=parties.creditor.customer_id,
        debtor_account=original.creditor_account,
        debtor_account_id=original.creditor_account_id,
        creditor_customer_id=original.customer_id,
        creditor_account=original.debtor_account,
        creditor_account_id=parties.debtor.account_id,
        reason_code=command.reason_code,
        note=command.note,
        needs_approval=needs_approval,
        requested_by=command.requested_by,
        traceparent=command.traceparent,
        requested_at=now,
        updated_at=now,
        state=state,
        leased_until=None if needs_approval else due_at,
        due_at=due_at,
        expires_at=due_at if needs_approval else None,
    )
    made.steps.append(ReturnStep(1, None, state, now, command.reason_code, command.requested_by))
    return made


def not_returnable(original: Payment) -> PayflowError | None:
    """Why nothing of this payment can be returned, whoever asks; None when something may be."""
    if original.state is not PaymentState.COMPLETED:
        return NotReturnable(f"The payment is {original.state}; only a completed payment can be returned.")
    return None if original.is_on_us else left_this_bank()


def left_this_bank() -> PayflowError:
    """The money is not ours to move any more."""
    return ReturnNotPossible("The money has left for another bank: ask that bank to return it (recall, camt.056).")


def _amount_of(command: RequestReturn, original: Money, taken_minor: int) -> int | PayflowError:
    left = original.minor_units - taken_minor
    if left <= 0:
        return ReturnExceedsPayment("Nothing is left of the payment that could be returned.")
    if command.amount is None:
        return left
    try:
        amount = Money.from_decimal(command.amount, original.currency)
    except Rejection as error:
        return error
    if amount.minor_units > left:
        told = format_minor(left, original.currency)
        return ReturnExceedsPayment(f"At most {told} {original.currency} of the payment can still be returned.")
    return amount.minor_units


def answer_to_repeated_return(known: ReturnPayment, command: RequestReturn) -> ReturnView | PayflowError:
    """How the return stands that was asked for under this key; KeyReused for other content."""
    return KeyReused() if known.fingerprint != command.fingerprint else known.view()


def refuse_decision(known: ReturnPayment, command: DecideReturn) -> PayflowError | None:
    """Why this person may not decide this about the return now; None when they may."""
    if command.officer_customer_id in known.customers:
        return ReturnOwnPayment()
    if command.decided_by.casefold() == known.requested_by.casefold():
        return FourEyesRequired()
    if known.state is not _S.AWAITING_APPROVAL:
        return ReturnDecided(f"The return is {known.state} and does not wait for a decision.")
    return None


def is_same_decision(known: ReturnPayment, command: DecideReturn) -> bool:
    """Whether the return was decided just so by the same person before."""
    was_approved = known.state is not _S.DECLINED
    return known.decided_by == command.decided_by and was_approved == command.is_approved


def late_error(known: ReturnPayment) -> PayflowError:
    """What is told of a return that ran out of time in the state where it is."""
    reasons = {_S.AWAITING_APPROVAL: "nobody approved it", _S.UNDER_REVIEW: "no decision was made"}
    return PaymentExpired(f"The return has expired: {reasons.get(known.state, 'it could not be made')} in time.")
