"""The path in a payment's events: put end to end, the paths of all events are the payment's whole life."""

from __future__ import annotations

import pytest

from payflow.contracts.confirm import PaymentState
from payflow.services.confirm.domain import WORKING, Payment
from tests.builders import NOON, new_id

S = PaymentState


def a_payment() -> Payment:
    payment = Payment(
        payment_id=new_id(),
        customer_id="cust_1",
        idempotency_key="key",
        fingerprint=b"",
        transaction_id="txn",
        amount="1.00",
        currency="USD",
        debtor_account="ACC1",
        creditor_account="ACC2",
        creditor=None,
        remittance_information=None,
        traceparent="",
        received_at=NOON,
        updated_at=NOON,
    )
    payment.version = 1
    return payment


@pytest.mark.parametrize(
    "saves",
    [
        [[S.APPROVED, S.COMPLETED]],
        [[S.REJECTED]],
        [[S.APPROVED], [S.COMPLETED]],
        [[S.AWAITING_OTP], [S.APPROVED], [S.COMPLETED]],
        [[S.AWAITING_OTP], [S.APPROVED, S.COMPLETED]],
        [[S.UNDER_REVIEW], [S.AWAITING_OTP], [S.APPROVED], [S.HELD, S.SUBMITTED], [S.COMPLETED]],
        [[S.APPROVED, S.HELD, S.SUBMITTED], [S.REJECTED]],
        [[S.APPROVED], [S.HELD, S.SUBMITTED], [S.COMPLETED]],
    ],
)
def test_the_paths_of_all_events_are_every_state_once(saves: list[list[PaymentState]]) -> None:
    payment, told = a_payment(), []

    for save in saves:
        for state in save:
            payment.move(state, now=NOON)
        if payment.state not in WORKING:
            told += payment.change(at=NOON).path
        payment.transitions.clear()

    assert told == ["RECEIVED", *(state.value for save in saves for state in save)]
