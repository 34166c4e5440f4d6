"""A payment's life: its states, what may follow what, and what each outcome means. Pure."""

from payflow.services.confirm.domain.decisions import (
    answer_to_repeat,
    apply_assessment,
    cancelled_error,
    expiry_error,
    party_names,
    receive,
    refusal_on_its_day,
)
from payflow.services.confirm.domain.payment import (
    Payment,
    Transition,
    end_to_end_id_of,
    otp_attempt_of,
    reference_of,
)
from payflow.services.confirm.domain.states import (
    CANCELLABLE,
    CARE,
    MACHINE,
    PENDING_REASONS,
    WAITS_FOR_A_PERSON,
    WORKING,
    Care,
    Deadlines,
)

__all__ = [
    "CANCELLABLE",
    "CARE",
    "MACHINE",
    "PENDING_REASONS",
    "WAITS_FOR_A_PERSON",
    "WORKING",
    "Care",
    "Deadlines",
    "Payment",
    "Transition",
    "answer_to_repeat",
    "apply_assessment",
    "cancelled_error",
    "end_to_end_id_of",
    "expiry_error",
    "otp_attempt_of",
    "party_names",
    "receive",
    "reference_of",
    "refusal_on_its_day",
]
