"""A payment's life: its states, what may follow what, and what each outcome means. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID, uuid5

from payflow.contracts.account import PartiesResolved
from payflow.contracts.confirm import (
    ConfirmPayment,
    Creditor,
    CreditorNameRequired,
    InvalidExecutionTime,
    KeyReused,
    PaymentCancelled,
    PaymentExpired,
    PaymentInProgress,
    PaymentRefused,
    PaymentState,
    PaymentView,
    TransactionExists,
)
from payflow.contracts.risk import Assessed
from payflow.contracts.topics import PaymentChanged, mask_account
from payflow.kernel.errors import PayflowError, Rejection
from payflow.kernel.machine import Machine
from payflow.kernel.money import CurrencyMismatch, Money

_S = PaymentState

MACHINE: Final = Machine(
    {
        _S.RECEIVED: {_S.UNDER_REVIEW, _S.AWAITING_OTP, _S.APPROVED, _S.REJECTED},
        _S.UNDER_REVIEW: {_S.AWAITING_OTP, _S.APPROVED, _S.REJECTED, _S.CANCELLED, _S.EXPIRED},
        _S.AWAITING_OTP: {_S.APPROVED, _S.REJECTED, _S.CANCELLED, _S.EXPIRED},
        _S.APPROVED: {_S.COMPLETED, _S.HELD, _S.SCHEDULED, _S.REJECTED},
        _S.SCHEDULED: {_S.APPROVED, _S.UNDER_REVIEW, _S.REJECTED, _S.CANCELLED, _S.EXPIRED},
        _S.HELD: {_S.SUBMITTED, _S.CANCELLED, _S.REJECTED},
        _S.SUBMITTED: {_S.COMPLETED, _S.REJECTED},
        _S.COMPLETED: set(),
        _S.REJECTED: set(),
        _S.CANCELLED: set(),
        _S.EXPIRED: set(),
    }
)

CANCELLABLE: Final = frozenset({_S.UNDER_REVIEW, _S.AWAITING_OTP, _S.SCHEDULED, _S.HELD})
# Nobody waits in these; they have no event of their own, and the next event's path lists them.
WORKING: Final = frozenset({_S.RECEIVED, _S.APPROVED})
_AT_WORK: Final = frozenset({_S.RECEIVED, _S.APPROVED, _S.HELD})
WAITS_FOR_A_PERSON: Final = frozenset({_S.UNDER_REVIEW, _S.AWAITING_OTP})


@dataclass(frozen=True, slots=True)
class Care:
    """Why a payment in a state is never stuck: until when it may rest there, who sees to it, what happens by itself."""

    deadline: str
    owner: str
    next_step: str


CARE: Final = {
    _S.RECEIVED: Care("lease, 10 s", "confirm", "driven on by any confirm process; ended unpaid after 60 s"),
    _S.APPROVED: Care("lease, 10 s", "confirm", "booked by any confirm process; ended unpaid after 60 s"),
    _S.HELD: Care("lease, 10 s", "confirm", "submitted by any confirm process; ended unpaid after 60 s"),
    _S.UNDER_REVIEW: Care("72 h", "compliance", "expires, and its funds are released"),
    _S.AWAITING_OTP: Care("15 min", "the customer", "expires"),
    _S.SCHEDULED: Care(
        "its day, and 24 h", "confirm", "screened again and made, tried again for 24 h, then it expires"
    ),
    _S.SUBMITTED: Care("15 s, again and again", "partner_bank", "the other bank is asked what became of it"),
}

PENDING_REASONS: Final = {
    _S.UNDER_REVIEW: "The payment is under review.",
    _S.SCHEDULED: "The payment will be made on its day.",
    _S.HELD: "The payment is on its way to the other bank.",
    _S.SUBMITTED: "The payment is at the other bank.",
    _S.RECEIVED: "The payment is being worked on.",
    _S.APPROVED: "The payment is being worked on.",
}


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long a payment may rest in a state, and how long a process may work on it before another takes over."""

    lease: timedelta = timedelta(seconds=10)
    otp: timedelta = timedelta(minutes=15)
    review: timedelta = timedelta(hours=72)
    bank_enquiry: timedelta = timedelta(seconds=15)
    # After this long nobody expects an unfinished payment to be made any more: it is ended instead of driven on.
    unfinished: timedelta = timedelta(seconds=60)
    # A hold outlives its review a little, so that the payment expires before its money is given back.
    hold_grace: timedelta = timedelta(hours=1)
    # How far ahead a payment can be ordered, and how long after its day it is still tried before it expires.
    execute_ahead: timedelta = timedelta(days=365)
    execute_late: timedelta = timedelta(hours=24)


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
        """The money has moved already, by a process that did not live to say so: the payment is completed."""
        if self.state is _S.RECEIVED:
            self.approve(now=now)
        self.end(_S.COMPLETED, now=now)

    def is_overdue(self, *, now: datetime, deadlines: Deadlines) -> bool:
        """Whether an unfinished payment has been at work for so long that it is to be ended."""
        return self.state in _AT_WORK and now - self.updated_at >= deadlines.unfinished

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


def receive(
    command: ConfirmPayment,
    *,
    payment_id: UUID,
    parties: PartiesResolved | PayflowError,
    now: datetime,
    deadlines: Deadlines,
) -> Payment:
    """A new payment: leased to this process, or refused at once when it can never be made."""
    payment = Payment(
        payment_id=payment_id,
        customer_id=command.customer_id,
        idempotency_key=command.idempotency_key,
        fingerprint=command.fingerprint,
        transaction_id=command.transaction_id,
        amount=command.amount,
        currency=command.currency,
        debtor_account=command.debtor_account,
        creditor_account=command.creditor_account,
        creditor=command.creditor,
        remittance_information=command.remittance_information,
        traceparent=command.traceparent,
        received_at=now,
        updated_at=now,
        version=1,
        leased_until=now + deadlines.lease,
        due_at=now + deadlines.lease,
        execute_at=command.execute_at,
    )
    payment.transitions.append(Transition(1, None, _S.RECEIVED, now, None))
    refusal = _accept(payment, parties) or _wrong_time(payment, now=now, deadlines=deadlines)
    if refusal is not None:
        payment.end(_S.REJECTED, now=now, error=refusal)
    return payment


def _accept(payment: Payment, parties: PartiesResolved | PayflowError) -> PayflowError | None:
    """Fix the parties and the amount; or the reason why the payment can never be made."""
    if isinstance(parties, PayflowError):
        return parties
    debtor, creditor, external = parties.debtor, parties.creditor, parties.external
    if external is not None and not _has_creditor_name(payment):
        return CreditorNameRequired()
    if payment.currency is not None and payment.currency != debtor.currency:
        return CurrencyMismatch(f"The account is in {debtor.currency}, the payment in {payment.currency}.")
    if creditor is not None and creditor.currency != debtor.currency:
        return CurrencyMismatch(f"The accounts are in {debtor.currency} and {creditor.currency}.")
    try:
        money = Money.from_decimal(payment.amount, debtor.currency)
    except Rejection as error:
        return error
    payment.amount_minor, payment.currency = money.minor_units, money.currency
    payment.debtor_account_id = debtor.account_id
    payment.creditor_account_id = creditor.account_id if creditor else None
    payment.agent_bic = external.agent_bic if external else None
    payment.parties = parties
    return None


def _wrong_time(payment: Payment, *, now: datetime, deadlines: Deadlines) -> PayflowError | None:
    if payment.execute_at is None:
        return None
    if payment.execute_at <= now:
        return InvalidExecutionTime("execute_at is not in the future.")
    if payment.execute_at > now + deadlines.execute_ahead:
        return InvalidExecutionTime(f"execute_at is more than {deadlines.execute_ahead.days} days ahead.")
    return None


def _has_creditor_name(payment: Payment) -> bool:
    return payment.creditor is not None and bool(payment.creditor.name.strip())


def party_names(payment: Payment) -> list[str]:
    """All names to screen: both owners', and the creditor's as the customer gave it."""
    if payment.parties is None:
        raise ValueError("the payment's parties are not resolved")
    if payment.parties.creditor is None and not _has_creditor_name(payment):
        raise ValueError("nobody knows the creditor's name, so nobody can screen it")
    names = [payment.parties.debtor.name]
    if payment.parties.creditor is not None:
        names.append(payment.parties.creditor.name)
    if payment.creditor is not None:
        names.append(payment.creditor.name)
    return names


def apply_assessment(payment: Payment, assessed: Assessed) -> None:
    """Take over what risk found."""
    payment.risk_level = assessed.level.value
    payment.needs_otp = assessed.needs_otp
    payment.review_id = assessed.review_id


def answer_to_repeat(payment: Payment, command: ConfirmPayment, *, now: datetime) -> PayflowError | None:
    """Why a repeated request gets no answer from this payment, or None when it may have one.

    KeyReused for other content, TransactionExists under another key, PaymentInProgress while a process works on it.
    """
    if payment.idempotency_key != command.idempotency_key:
        return TransactionExists()
    if payment.fingerprint != command.fingerprint:
        return KeyReused()
    # At the other bank a payment is told as pending, also while its answer is being waited for.
    if not payment.is_final and payment.state is not _S.SUBMITTED and payment.is_leased(now):
        return PaymentInProgress(retry_after_s=1)
    return None


def expiry_error(state: PaymentState) -> PayflowError:
    """What a customer is told about a payment that ran out of time in this state."""
    reasons = {
        _S.SCHEDULED: "it could not be made on its day",
        _S.AWAITING_OTP: "no valid one-time password came",
        _S.UNDER_REVIEW: "no decision was made",
    }
    what = reasons.get(state, "it could not be made")
    return PaymentExpired(f"The payment has expired: {what} in time.")


def refusal_on_its_day(payment: Payment, assessed: Assessed) -> PayflowError | None:
    """Why a payment is not made although its order was accepted: it would need more proof of its customer now."""
    if assessed.needs_otp and not payment.needs_otp:
        return PaymentRefused("The payment was refused on its day: the customer is not identified as well any more.")
    return None


def cancelled_error() -> PayflowError:
    """What a repeat of a cancelled payment is told."""
    return PaymentCancelled("The payment was cancelled by the customer.")
