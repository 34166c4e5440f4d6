"""What webhooks are sent of an event: amounts as texts, masked accounts, no word about lists or the bank's people."""

from __future__ import annotations

from uuid import UUID

import msgspec
import pytest

from payflow.contracts.notification import WEBHOOK_EVENT_TYPES
from payflow.contracts.topics import BulkChanged, ReturnChanged
from payflow.kernel.envelope import Event
from payflow.platform.eventlog import event_of
from payflow.services.notification.domain import webhooks as domain
from tests.builders import NOON, new_id
from tests.builders_webhooks import a_payment_event, an_incoming_event


def told_by_confirm(type_: str, data: BulkChanged | ReturnChanged, *, subject: UUID, version: int) -> Event:
    return event_of(
        id=new_id(),
        source="confirm",
        type=type_,
        subject=str(subject),
        version=version,
        time=NOON,
        data=data,
        traceparent="",
    )


def test_a_body_has_amount_and_masked_accounts_and_no_word_about_lists() -> None:
    event = a_payment_event("payment.rejected", error_code="INSUFFICIENT_FUNDS")

    heard = domain.heard(event)

    assert heard is not None
    body = msgspec.json.decode(heard.body)
    assert body["type"] == "payment.rejected"
    assert body["timestamp"] == "2026-03-02T12:00:00Z"
    assert body["data"] == {
        "payment_id": event.subject,
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
        "state": "REJECTED",
        "version": 3,
        "amount": "1234.56",
        "currency": "EUR",
        "from_account": "…4001",
        "to_account": "…1001",
        "risk_level": None,
        "error": "INSUFFICIENT_FUNDS",
        "bulk_id": None,
        "reason_code": "AM04",
    }


def test_money_from_another_bank_is_told_with_masked_accounts() -> None:
    heard = domain.heard(an_incoming_event())

    assert heard is not None
    data = msgspec.json.decode(heard.body)["data"]
    assert (data["state"], data["amount"], data["to_account"], data["agent_bic"]) == (
        "CREDITED",
        "5.00",
        "…4001",
        "NORDDEFFXXX",
    )


def test_the_end_of_a_file_of_payments_can_be_heard() -> None:
    data = BulkChanged(
        bulk_id=new_id(),
        customer_id="cust_1",
        state="COMPLETED",
        total=3,
        counts={"SUCCESS": 2, "INVALID": 1},
        paid_minor={"JPY": 5, "USD": 1250},
    )
    event = told_by_confirm("bulk.completed", data, subject=data.bulk_id, version=3)

    heard = domain.heard(event)

    assert heard is not None
    assert heard.customer_id == "cust_1"
    told = msgspec.json.decode(heard.body)
    assert (told["type"], told["data"]["counts"]) == ("bulk.completed", {"SUCCESS": 2, "INVALID": 1})
    assert told["data"]["paid"] == {"JPY": "5", "USD": "12.50"}
    assert "paid_minor" not in told["data"]


@pytest.mark.parametrize("bulk_id", [None, new_id()])
def test_a_payment_names_the_file_that_it_came_with(bulk_id: UUID | None) -> None:
    heard = domain.heard(a_payment_event(bulk_id=bulk_id))

    assert heard is not None
    assert msgspec.json.decode(heard.body)["data"]["bulk_id"] == (bulk_id and str(bulk_id))


def test_a_return_is_told_linked_to_its_payment_and_without_who_decided() -> None:
    change = ReturnChanged(
        return_id=new_id(),
        payment_id=new_id(),
        transaction_id="txn_001",
        customer_id="cust_001",
        debtor_customer_id="cust_002",
        state="COMPLETED",
        amount_minor=25_000,
        currency="EUR",
        debtor_account="…1001",
        creditor_account="…4001",
        reason_code="AM05",
        requested_by="olga",
        decided_by="omar",
    )
    event = told_by_confirm("return.completed", change, subject=change.return_id, version=2)

    heard = domain.heard(event)

    assert heard is not None
    assert heard.customer_id == "cust_001"
    assert msgspec.json.decode(heard.body)["data"] == {
        "return_id": str(change.return_id),
        "payment_id": str(change.payment_id),
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
        "state": "COMPLETED",
        "version": 2,
        "amount": "250.00",
        "currency": "EUR",
        "from_account": "…1001",
        "to_account": "…4001",
        "error": None,
        "reason_code": "AM05",
    }


@pytest.mark.parametrize("type_", [type_ for type_ in WEBHOOK_EVENT_TYPES if type_.startswith("payment.")])
def test_every_payment_event_can_be_heard(type_: str) -> None:
    assert domain.heard(a_payment_event(type_, amount_minor=None, currency=None)) is not None
