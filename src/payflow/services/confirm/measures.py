"""What is told of payments by metrics: counted where their steps are stored, a batch at a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from payflow.contracts.confirm import PaymentState
from payflow.contracts.problems import PROBLEMS
from payflow.services.confirm.domain import Payment

_payments: Final = Counter("payflow_payments_total", "Payments that came into this state.", ["state"])
_volume: Final = Counter(
    "payflow_payment_volume_minor_units_total",
    "Money of completed payments, in the minor units of its currency.",
    ["currency"],
)
_refusals: Final = Counter(
    "payflow_payment_refusals_total", "Payments that ended unpaid, by the code of the refusal.", ["code"]
)


def count_steps(payments: Iterable[Payment], *, stored: Collection[UUID]) -> None:
    """Count the steps that were just stored, before they are forgotten."""
    entered: dict[PaymentState, int] = {}
    for payment in payments:
        if payment.payment_id in stored:
            for step in payment.transitions:
                entered[step.target] = entered.get(step.target, 0) + 1
            if payment.is_final and payment.transitions:
                _count_end(payment)
    for state, count in entered.items():
        _payments.labels(state.value).inc(count)


def _count_end(payment: Payment) -> None:
    if payment.state is not PaymentState.COMPLETED:
        code = payment.error_code if payment.error_code in PROBLEMS else "OTHER"
        _refusals.labels(code).inc()
    elif payment.currency is not None and payment.amount_minor is not None:
        _volume.labels(payment.currency).inc(payment.amount_minor)
