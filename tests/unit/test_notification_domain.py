"""What customers are told of, in which words, by which channel, and how often it is tried."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from payflow.contracts.topics import (
    BulkChanged,
    IncomingPayment,
    PaymentChanged,
    ReturnChanged,
    ReviewDecidedEvent,
    SecurityEvent,
)
from payflow.kernel.envelope import Event
from payflow.kernel.money import Money
from payflow.platform.eventlog import event_of
from payflow.services.notification.domain import (
    Accepted,
    DeliveryState,
    Kind,
    Outgoing,
    PermanentFailure,
    RetryPolicy,
    SendResult,
    Sent,
    TemporaryFailure,
    Ways,
    clean,
    notice_of,
    notices_of,
)
from payflow.services.notification.templates import FileTemplates
from tests.builders import NOON, new_id

TEMPLATES = FileTemplates.load()


def an_event(type_: str, data: msgspec.Struct, *, subject: str = "") -> Event:
    return event_of(
        id=new_id(),
        source="test",
        type=type_,
        subject=subject or str(new_id()),
        version=1,
        time=NOON,
        data=data,
        traceparent="",
    )


def a_payment_event(type_: str = "payment.completed", **changes: Any) -> Event:
    values: dict[str, Any] = {
        "payment_id": new_id(),
        "transaction_id": "txn_001",
        "customer_id": "cust_001",
        "state": "COMPLETED",
        "path": ["RECEIVED", "COMPLETED"],
        "amount_minor": 100_000,
        "currency": "USD",
        "debtor_account": "…C001",
        "creditor_account": "DE08990100100000001001",
        "reason": "SECRET RULE",
        "error_code": "PAYMENT_REFUSED",
    }
    return an_event(type_, PaymentChanged(**{**values, **changes}))


def an_outgoing(tries: int = 1) -> Outgoing:
    return Outgoing(
        message_id=new_id(),
        customer_id="cust_001",
        kind=Kind.PAYMENT_COMPLETED,
        subject="s",
        short="t",
        body="b",
        channel="sms",
        tries=tries,
        created_at=NOON,
    )


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("payment.completed", Kind.PAYMENT_COMPLETED),
        ("payment.rejected", Kind.PAYMENT_REJECTED),
        ("payment.under_review", Kind.PAYMENT_UNDER_REVIEW),
        ("payment.cancelled", Kind.PAYMENT_CANCELLED),
        ("payment.expired", Kind.PAYMENT_EXPIRED),
        ("payment.awaiting_otp", None),
        ("payment.held", None),
        ("payment.submitted", None),
    ],
)
def test_a_payments_ends_and_reviews_are_told_and_its_steps_are_not(type_: str, kind: Kind | None) -> None:
    event = a_payment_event(type_)

    notice = notice_of(event)

    assert (notice.kind if notice else None) == kind
    assert notice is None or (notice.about, notice.customer_id) == (event.subject, "cust_001")


@pytest.mark.parametrize(
    ("type_", "path", "kind"),
    [
        ("payment.completed", ["RECEIVED", "APPROVED", "COMPLETED"], None),
        ("payment.completed", ["RECEIVED", "COMPLETED"], None),
        ("payment.rejected", ["RECEIVED", "REJECTED"], None),
        # The file's counts have these as under way, or as waiting for a code: what becomes of them is told.
        ("payment.under_review", ["RECEIVED", "UNDER_REVIEW"], Kind.PAYMENT_UNDER_REVIEW),
        ("payment.under_review", ["UNDER_REVIEW"], Kind.PAYMENT_UNDER_REVIEW),
        ("payment.completed", ["COMPLETED"], Kind.PAYMENT_COMPLETED),
        ("payment.completed", ["APPROVED", "COMPLETED"], Kind.PAYMENT_COMPLETED),
        ("payment.rejected", ["REJECTED"], Kind.PAYMENT_REJECTED),
        ("payment.rejected", ["APPROVED", "REJECTED"], Kind.PAYMENT_REJECTED),
        ("payment.cancelled", ["CANCELLED"], Kind.PAYMENT_CANCELLED),
        ("payment.expired", ["EXPIRED"], Kind.PAYMENT_EXPIRED),
    ],
)
def test_of_a_files_payments_those_that_ended_at_once_are_told_by_the_file_alone(
    type_: str, path: list[str], kind: Kind | None
) -> None:
    notice = notice_of(a_payment_event(type_, path=path, bulk_id=new_id()))

    assert (notice.kind if notice else None) == kind


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("bulk.completed", Kind.BULK_COMPLETED),
        ("bulk.cancelled", Kind.BULK_CANCELLED),
        ("bulk.expired", Kind.BULK_EXPIRED),
        ("bulk.accepted", None),
    ],
)
def test_the_end_of_a_file_of_payments_is_told_with_its_sums(type_: str, kind: Kind | None) -> None:
    bulk_id = new_id()
    counts = {"SUCCESS": 5, "PENDING": 1, "OTP_REQUIRED": 2, "INVALID": 1, "REJECTED": 1}
    data = BulkChanged(
        bulk_id=bulk_id,
        customer_id="cust_001",
        state="COMPLETED",
        total=10,
        counts=counts,
        paid_minor={"USD": 1250, "EUR": 99},
    )

    notice = notice_of(an_event(type_, data, subject=str(bulk_id)))

    assert (notice.kind if notice else None) == kind
    assert notice is None or (notice.about, notice.customer_id) == (str(bulk_id), "cust_001")
    assert notice is None or notice.values["paid"] == (Money(99, "EUR"), Money(1250, "USD"))
    assert notice is None or [notice.values[name] for name in ("total", "made", "waiting", "codes", "unpaid")] == [
        10,
        5,
        1,
        2,
        2,
    ]


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_message_names_amount_and_masked_accounts_and_no_reason(language: str) -> None:
    notice = notice_of(a_payment_event("payment.rejected"))
    assert notice is not None

    text = "\n".join(TEMPLATES.render(notice.kind, language, notice.values))

    assert "txn_001" in text
    assert {"en": "1,000.00 USD", "de": "1.000,00 USD"}[language] in text
    assert "…C001" in text
    assert "…1001" in text
    assert "DE0899" not in text
    assert "SECRET RULE" not in text
    assert "REFUSED" not in text


def test_a_payment_refused_before_its_account_was_found_is_told_without_an_amount() -> None:
    notice = notice_of(a_payment_event("payment.rejected", amount_minor=None, currency=None))

    assert notice is not None
    assert notice.values["amount"] == "-"


def a_return_event(type_: str) -> Event:
    data = ReturnChanged(
        return_id=new_id(),
        payment_id=new_id(),
        transaction_id="txn_001",
        customer_id="cust_001",
        debtor_customer_id="cust_002",
        state=type_.partition(".")[2].upper(),
        amount_minor=25_000,
        currency="EUR",
        debtor_account="…1001",
        creditor_account="…C001",
        reason_code="FR01",
        requested_by="olga",
        decided_by="omar",
    )
    return an_event(type_, data)


@pytest.mark.parametrize("language", ["en", "de"])
def test_a_completed_return_is_told_to_both_sides_without_who_decided_and_why(language: str) -> None:
    notices = notices_of(a_return_event("return.completed"))

    texts = ["\n".join(TEMPLATES.render(notice.kind, language, notice.values)) for notice in notices]
    amount = {"en": "250.00 EUR", "de": "250,00 EUR"}[language]

    assert [(notice.kind, notice.customer_id) for notice in notices] == [
        (Kind.RETURN_RECEIVED, "cust_001"),
        (Kind.RETURN_PAID, "cust_002"),
    ]
    assert all(amount in text and "…1001" in text and "…C001" in text for text in texts)
    assert not any(word in text for text in texts for word in ("olga", "omar", "FR01"))
    assert ["txn_001" in text for text in texts] == [True, False]


@pytest.mark.parametrize("step", ["requested", "approved", "declined", "under_review", "rejected", "expired"])
def test_a_return_that_has_moved_nothing_is_told_to_no_customer(step: str) -> None:
    assert notices_of(a_return_event(f"return.{step}")) == []


@pytest.mark.parametrize(("is_cleared", "kind"), [(True, Kind.REVIEW_CLEARED), (False, None)])
def test_a_cleared_review_is_told_and_a_block_is_left_to_the_rejection(is_cleared: bool, kind: Kind | None) -> None:
    data = ReviewDecidedEvent(
        review_id=new_id(), payment_id=new_id(), customer_id="cust_001", is_cleared=is_cleared, decided_by="officer"
    )

    notice = notice_of(an_event("review.decided", data))

    assert (notice.kind if notice else None) == kind
    assert "officer" not in repr(notice)


@pytest.mark.parametrize(("customer_id", "is_told"), [("cust_001", True), (None, False)])
def test_money_that_came_in_is_told_to_its_owner(customer_id: str | None, is_told: bool) -> None:
    data = IncomingPayment(
        payment_id=new_id(),
        end_to_end_id="E2E",
        customer_id=customer_id,
        account="…C001",
        amount_minor=5_000,
        currency="JPY",
        agent_bic="NORDDEFFXXX",
    )

    notice = notice_of(an_event("incoming.credited", data))

    assert (notice is not None) == is_told
    assert notice is None or notice.values == {
        "amount": Money(5000, "JPY"),
        "creditor": "…C001",
        "agent": "NORDDEFFXXX",
    }


def test_each_reuse_of_a_refresh_token_is_told_to_the_customer_it_concerns() -> None:
    data = SecurityEvent(actor="demo", customer_id="cust_001")
    events = [an_event("security.refresh_reused", data, subject="demo") for _ in range(2)]

    notices = [notice_of(event) for event in (*events, an_event("security.signed_in", data))]

    assert [notice.customer_id if notice else None for notice in notices] == ["cust_001", "cust_001", None]
    assert len({notice.about for notice in notices if notice}) == 2


def test_data_of_another_shape_is_an_error_and_not_a_silent_gap() -> None:
    event = msgspec.structs.replace(a_payment_event(), data={"payment_id": "x"})

    with pytest.raises(msgspec.ValidationError):
        notice_of(event)


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [
        ("txn_001", "txn_001"),
        ("a\r\nBcc: x@example.org", "a Bcc: x@example.org"),
        ("a\x00\x1b[2Jb\u202e", "a [2Jb"),
        ("{code}", "{code}"),
        ("x" * 500, "x" * 140),
    ],
)
def test_values_that_customers_choose_stay_on_one_line(given: str, cleaned: str) -> None:
    assert clean(given) == cleaned


@pytest.mark.parametrize(
    ("preferred", "in_use", "tried"),
    [
        ((), ("sms", "email"), ("sms", "email")),
        (("email",), ("sms", "email"), ("email",)),
        (("push", "email", "sms"), ("sms", "email"), ("email", "sms")),
        (("push",), ("sms", "email"), ("sms", "email")),
        (("push",), (), ()),
    ],
)
def test_a_message_goes_the_ways_its_customer_prefers_else_those_of_the_installation(
    preferred: tuple[str, ...], in_use: tuple[str, ...], tried: tuple[str, ...]
) -> None:
    assert Ways(in_use=in_use, by_default=in_use).for_customer(preferred) == tried


@pytest.mark.parametrize(
    ("result", "tries", "state", "wait_s"),
    [
        (Accepted(), 1, DeliveryState.DELIVERED, 0),
        (PermanentFailure("no such number"), 1, DeliveryState.FAILED, 0),
        (TemporaryFailure("busy"), 1, DeliveryState.PENDING, 5),
        (TemporaryFailure("busy"), 4, DeliveryState.PENDING, 40),
        (TemporaryFailure("busy"), 8, DeliveryState.FAILED, 0),
        (TemporaryFailure("busy", retry_after=timedelta(seconds=90)), 1, DeliveryState.PENDING, 90),
        (TemporaryFailure("busy", retry_after=timedelta(seconds=9)), 4, DeliveryState.PENDING, 40),
        (TemporaryFailure("busy", retry_after=timedelta(days=9)), 4, DeliveryState.PENDING, 3600),
        (TemporaryFailure("out", is_outage=True), 8, DeliveryState.PENDING, 640),
        (TemporaryFailure("out", is_outage=True), 30, DeliveryState.FAILED, 0),
        (Sent("SM1"), 1, DeliveryState.SENT, 0),
    ],
)
def test_a_try_is_repeated_with_growing_pauses_until_it_is_given_up(
    result: SendResult, tries: int, state: DeliveryState, wait_s: int
) -> None:
    outcome = RetryPolicy().outcome(an_outgoing(tries), result, now=NOON)

    assert outcome.state is state
    assert outcome.next_try_at == NOON + timedelta(seconds=wait_s)
    assert (outcome.ended_at is None) == (state is DeliveryState.PENDING)


def test_pauses_do_not_grow_without_end() -> None:
    assert RetryPolicy().pause_after(10_000) == timedelta(hours=1)


def test_what_is_on_its_way_out_does_not_print_its_text() -> None:
    printed = repr(replace(an_outgoing(), short="SHORT", body="BODY", code="012345"))

    assert "SHORT" not in printed
    assert "BODY" not in printed
    assert "012345" not in printed
