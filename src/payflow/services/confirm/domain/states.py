"""The states of a payment, what may follow what, and how long it may rest in each. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from payflow.contracts.confirm import PaymentState
from payflow.kernel.machine import Machine

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

UNFINISHED: Final = frozenset(state for state in PaymentState if not MACHINE.is_final(state))
CANCELLABLE: Final = frozenset({_S.UNDER_REVIEW, _S.AWAITING_OTP, _S.SCHEDULED, _S.HELD})
# Nobody waits in these; they have no event of their own, and the next event's path lists them.
WORKING: Final = frozenset({_S.RECEIVED, _S.APPROVED})
AT_WORK: Final = frozenset({_S.RECEIVED, _S.APPROVED, _S.HELD})
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
    _S.SUBMITTED: "The payment is at the other bank, or on its way there.",
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
