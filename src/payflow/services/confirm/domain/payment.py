"""A payment as the saga works on it: its steps, what is told of it, and the ids that are derived from it. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID, uuid5

from payflow.contracts.account import PartiesResolved
from payflow.contracts.confirm import Creditor, PaymentState, PaymentView
from payflow.contracts.topics import PaymentChanged, mask_account
from payflow.kernel.errors import PayflowError
from payflow.kernel.money import Money
from payflow.services.confirm.domain.states import (
    AT_WORK,
    MACHINE,
    PENDING_REASONS,
    WAITS_FOR_A_PERSON,
    WORKING,
    Deadlines,
)

_S = PaymentState


@dataclass(frozen=True, slots=True)
class Transition:
    """One step of a payment's life."""

    version: int
    source: PaymentState | None
    target: PaymentState
    at: datetime
    reason: str | None


@dataclass(slots=True)
class Payment:
    """A payment as the saga works on it. `transitions` are the steps taken since it was last stored."""

    payment_id: UUID
    customer_id: str
    idempotency_key: str
    fingerprint: bytes
    transaction_id: str
    amount: str
    currency: str | None
    debtor_account: str
    creditor_account: str
    creditor: Creditor | None
    remittance_information: str | None
    traceparent: str
    received_at: datetime
    updated_at: datetime
    state: PaymentState = _S.RECEIVED
    version: int = 0
    fencing_token: int = 1
    leased_until: datetime | None = None
    due_at: datetime | None = None
    amount_minor: int | None = None
    debtor_account_id: UUID | None = None
    creditor_account_id: UUID | None = None
    agent_bic: str | None = None
    risk_level: str | None = None
    needs_otp: bool = False
    has_hold: bool = False
    review_id: UUID | None = None
    reason: str | None = None
    error_code: str | None = None
    error_detail: str | None = None
    completed_at: datetime | None = None
    expires_at: datetime | None = None
    execute_at: datetime | None = None
    bulk_id: UUID | None = None
    transitions: list[Transition] = field(default_factory=list)
    parties: PartiesResolved | None = None

    @property
    def is_on_us(self) -> bool:
        """Whether the creditor's account is in our ledger."""
        return self.creditor_account_id is not None

    @property
    def is_final(self) -> bool:
        """Whether the payment has ended."""
        return MACHINE.is_final(self.state)

    @property
    def money(self) -> Money:
        """The amount in minor units; only for payments whose amount was accepted."""
        if self.amount_minor is None or self.currency is None:
            raise ValueError("the payment's amount was never accepted")
        return Money(self.amount_minor, self.currency)

    @property
    def creditor_reference(self) -> str:
        """The creditor as assessments and one-time passwords are bound to it: the bank where it is, and the number."""
        return f"{self.agent_bic}/{self.creditor_account}" if self.agent_bic else self.creditor_account

    def is_leased(self, now: datetime) -> bool:
        """Whether a process works on the payment right now."""
        return self.leased_until is not None and now < self.leased_until

    def is_for_later(self, now: datetime) -> bool:
        """Whether the payment was ordered for a day that has not come yet."""
        return self.execute_at is not None and now < self.execute_at

    def move(self, target: PaymentState, *, now: datetime, reason: str | None = None) -> None:
        """Take one step. Raises IllegalTransition."""
        MACHINE.check(self.state, target)
        self.version += 1
        self.transitions.append(Transition(self.version, self.state, target, now, reason))
        self.state, self.updated_at, self.reason = target, now, reason

    def approve(self, *, now: datetime) -> None:
        """Leave a state that waited for a person: no deadline counts any more, the lease says when to look again."""
        self.move(_S.APPROVED, now=now)
        self.due_at, self.expires_at = self.leased_until, None

    def await_code(self, *, now: datetime, deadlines: Deadlines) -> None:
        """Wait for the customer's one-time password, until its deadline."""
        self.move(_S.AWAITING_OTP, now=now)
        self.rest(until=now + deadlines.otp, expires_at=now + deadlines.otp)

    def wait_for_its_day(self, *, now: datetime) -> None:
        """Everything is checked and nothing held: nobody works on it until its day."""
        if self.execute_at is None:
            raise ValueError("the payment was not ordered for a day")
        self.move(_S.SCHEDULED, now=now)
        self.rest(until=self.execute_at, expires_at=None)

    def rest(self, *, until: datetime, expires_at: datetime | None) -> None:
        """Stop working on it: nobody has the lease, and the automatic next step is due at `until`."""
        self.leased_until, self.due_at, self.expires_at = None, until, expires_at

    def end(self, target: PaymentState, *, now: datetime, error: PayflowError | None = None) -> None:
        """Take the last step; every end but COMPLETED has the error that the customer is told."""
        self.move(target, now=now, reason=None if error is None else error.code)
        self.leased_until = self.due_at = self.expires_at = None
        if error is None:
            self.completed_at = now
        else:
            self.error_code, self.error_detail = error.code, error.detail

    def end_booked(self, *, now: datetime) -> None:
        """The money has moved already, by a process that did not live to say so: the payment is completed.

        A scheduled payment's, by a process whose clock said that its day had come.
        """
        if self.state in (_S.RECEIVED, _S.SCHEDULED):
            self.approve(now=now)
        self.end(_S.COMPLETED, now=now)

    def is_overdue(self, *, now: datetime, deadlines: Deadlines) -> bool:
        """Whether an unfinished payment has been at work for so long that it is to be ended."""
        return self.state in AT_WORK and now - self.updated_at >= deadlines.unfinished

    def has_expired(self, *, now: datetime) -> bool:
        """Whether the person that the payment waits for is too late, also where nobody has ended it yet."""
        return self.state in WAITS_FOR_A_PERSON and self.expires_at is not None and now >= self.expires_at

    @property
    def waits_since(self) -> datetime:
        """Since when the payment is in its state; a scheduled one since its day, which may be to come."""
        if self.state is _S.SCHEDULED and self.execute_at is not None:
            return max(self.updated_at, self.execute_at)
        return self.updated_at

    def has_missed_its_day(self, *, now: datetime, deadlines: Deadlines) -> bool:
        """Whether a scheduled payment could not be made for so long that nobody expects it any more."""
        return (
            self.state is _S.SCHEDULED
            and self.execute_at is not None
            and now - self.execute_at >= deadlines.execute_late
        )

    def view(self) -> PaymentView:
        """The payment as the contract tells it."""
        return PaymentView(
            payment_id=self.payment_id,
            transaction_id=self.transaction_id,
            customer_id=self.customer_id,
            state=self.state,
            version=self.version,
            amount=self.amount,
            amount_minor=self.amount_minor,
            currency=self.currency,
            debtor_account=self.debtor_account,
            creditor_account=self.creditor_account,
            risk_level=self.risk_level,
            reference=reference_of(self.payment_id) if self.state is _S.COMPLETED else None,
            reason=PENDING_REASONS.get(self.state, self.reason),
            error_code=self.error_code,
            error_detail=self.error_detail,
            received_at=self.received_at,
            updated_at=self.updated_at,
            completed_at=self.completed_at,
            expires_at=self.expires_at,
            creditor_name=self.creditor.name if self.creditor else None,
            remittance_information=self.remittance_information,
            trace_id=self.traceparent[3:35],
            execute_at=self.execute_at,
            bulk_id=self.bulk_id,
        )

    def _path(self) -> list[PaymentState]:
        """The states passed since the last event: a working state that was stored by itself had no event of its own."""
        first = self.transitions[0]
        untold = [first.source] if first.source in WORKING else []
        if first.source is _S.APPROVED and first.version == 3:
            untold.insert(0, _S.RECEIVED)  # approved at once: nothing in between has told of it
        return untold + [transition.target for transition in self.transitions]

    def change(self, *, at: datetime) -> PaymentChanged:
        """What the event about the latest steps carries."""
        return PaymentChanged(
            payment_id=self.payment_id,
            transaction_id=self.transaction_id,
            customer_id=self.customer_id,
            state=self.state,
            path=[state.value for state in self._path()],
            amount_minor=self.amount_minor,
            currency=self.currency,
            debtor_account=mask_account(self.debtor_account),
            creditor_account=mask_account(self.creditor_account),
            risk_level=self.risk_level,
            reason=self.reason,
            error_code=self.error_code,
            at=at,
            bulk_id=self.bulk_id,
        )


def reference_of(payment_id: UUID) -> str:
    """The reference that both sides see: short enough for a statement line, the payment id's first 96 bits."""
    return f"PF{payment_id.hex[:24].upper()}"


def end_to_end_id_of(payment_id: UUID) -> str:
    """The end-to-end id at the other bank (ISO 20022 Max35Text)."""
    return payment_id.hex


def otp_attempt_of(payment_id: UUID, code: str) -> UUID:
    """The same code for the same payment is the same attempt, so that a repeat after a crash is no second use."""
    return uuid5(payment_id, code)
