"""What is told of payments, where their steps are stored: metrics, a batch at a time, and one log line at the end."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Final
from uuid import UUID

from prometheus_client import Counter

from payflow.contracts.confirm import PaymentState
from payflow.contracts.problems import PROBLEMS
from payflow.platform.telemetry import Line, ecs_name, write_line
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


class PaymentEnded(Line, kw_only=True, omit_defaults=True, rename=ecs_name):
    """The canonical line: one per payment, when its end was stored. `takeovers`: how many processes drove it before."""

    payment_id: UUID
    transaction_id: str
    state: PaymentState
    is_on_us: bool
    version: int
    duration_ns: int
    risk_level: str | None = None
    currency: str | None = None
    error_code: str | None = None
    takeovers: int = 0


def tell_steps(payments: Iterable[Payment], *, stored: Collection[UUID]) -> None:
    """Tell of the steps that were just stored, before they are forgotten."""
    entered: dict[PaymentState, int] = {}
    for payment in payments:
        if payment.payment_id in stored:
            for step in payment.transitions:
                entered[step.target] = entered.get(step.target, 0) + 1
            if payment.is_final and payment.transitions:
                _count_end(payment)
                _write_line(payment)
    for state, count in entered.items():
        _payments.labels(state.value).inc(count)


def _count_end(payment: Payment) -> None:
    if payment.state is not PaymentState.COMPLETED:
        code = payment.error_code if payment.error_code in PROBLEMS else "OTHER"
        _refusals.labels(code).inc()
    elif payment.currency is not None and payment.amount_minor is not None:
        _volume.labels(payment.currency).inc(payment.amount_minor)


def _write_line(payment: Payment) -> None:
    write_line(
        PaymentEnded(
            message="payment.ended",
            trace_id=payment.traceparent[3:35],
            payment_id=payment.payment_id,
            transaction_id=payment.transaction_id,
            state=payment.state,
            is_on_us=payment.is_on_us,
            version=payment.version,
            duration_ns=int((payment.updated_at - payment.received_at).total_seconds() * 1e9),
            risk_level=payment.risk_level,
            currency=payment.currency,
            error_code=payment.error_code,
            takeovers=payment.fencing_token - 1,
        )
    )
