"""Log lines: one JSON object each, with ECS names, and nothing that one field says twice."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime

import pytest
import structlog

from payflow.contracts.confirm import Confirm, PaymentState, SendCode
from payflow.contracts.operation import operations_of
from payflow.contracts.risk import AssessPayment, Risk
from payflow.kernel.errors import Rejection
from payflow.platform.context import current_traceparent
from payflow.platform.lines import CallLines, payment_id_of, write_events_line
from payflow.services.confirm.measures import tell_steps
from tests.builders import NOON, new_id
from tests.builders_confirm import a_payment
from tests.builders_logs import TRACEPARENT, logging_to
from tests.fakes_audit import an_event


def test_a_line_has_ecs_names_and_ours_have_our_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_to(monkeypatch) as written:
        structlog.get_logger("x").warning(
            "bank.no_answer", error="ConnectionError()", error_code="X", agent="NORDDEFFXXX", service="confirm"
        )

    (line,) = written.lines
    assert list(line)[:3] == ["@timestamp", "log.level", "message"]
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line.pop("@timestamp"))).total_seconds()) < 5
    assert line == {
        "log.level": "warning",
        "message": "bank.no_answer",
        "ecs.version": "8.17.0",
        "service.name": "confirm",
        "service.node.name": "confirm-1",
        "trace.id": TRACEPARENT[3:35],
        "error.message": "ConnectionError()",
        "error.code": "X",
        "payflow.agent": "NORDDEFFXXX",
    }


def test_a_trace_that_is_named_counts_more_than_the_one_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_to(monkeypatch) as written:
        structlog.get_logger().info("payment.answered", trace_id="0af7651916cd43dd8448eb211c80319c")

    assert written.lines[0]["trace.id"] == "0af7651916cd43dd8448eb211c80319c"


def test_lines_below_the_level_are_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    payment = a_payment()
    payment.end(PaymentState.REJECTED, now=NOON, error=Rejection("no"))
    with logging_to(monkeypatch, level="warning") as written:
        structlog.get_logger().info("payment.answered")
        tell_steps([payment], stored={payment.payment_id})
        structlog.get_logger().error("payment.lost")

    assert [line["message"] for line in written.lines] == ["payment.lost"]


def test_what_libraries_say_has_the_same_shape_and_no_message_of_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    with logging_to(monkeypatch) as written:
        try:
            raise ValueError("Erika Musterfrau")
        except ValueError:
            logging.getLogger("uvicorn.error").exception("It broke.")

    (line,) = written.lines
    assert (line["message"], line["log.level"], line["log.logger"]) == ("It broke.", "error", "uvicorn.error")
    assert line["error.type"] == "ValueError"
    assert "Musterfrau" not in json.dumps(line)


def test_a_payment_has_one_line_when_it_ends_and_none_before(monkeypatch: pytest.MonkeyPatch) -> None:
    payment = a_payment(traceparent=TRACEPARENT, risk_level="LOW", fencing_token=2)
    with logging_to(monkeypatch) as written:
        current_traceparent.set("")
        payment.move(PaymentState.APPROVED, now=NOON)
        tell_steps([payment], stored={payment.payment_id})
        payment.transitions.clear()
        payment.end(PaymentState.COMPLETED, now=NOON)
        tell_steps([payment], stored={payment.payment_id})

    (line,) = written.lines
    assert {name: line[name] for name in line if name.startswith(("payflow", "trace", "message", "event"))} == {
        "message": "payment.ended",
        "trace.id": TRACEPARENT[3:35],
        "event.duration": 0,
        "payflow.payment_id": str(payment.payment_id),
        "payflow.transaction_id": "txn_001",
        "payflow.state": "COMPLETED",
        "payflow.is_on_us": True,
        "payflow.version": 2,
        "payflow.risk_level": "LOW",
        "payflow.currency": "USD",
        "payflow.takeovers": 1,
    }


def test_an_end_that_another_process_stored_is_not_ours_to_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    payment = a_payment()
    payment.end(PaymentState.REJECTED, now=NOON, error=Rejection("no"))
    with logging_to(monkeypatch) as written:
        tell_steps([payment], stored=set())

    assert written.lines == []


def test_a_call_has_one_line_with_the_payments_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [
        AssessPayment(
            payment_id=new_id(),
            customer_id="cust_001",
            amount_minor=1,
            currency="USD",
            debtor="ACC-DEBTOR-1",
            creditor="ACC-CREDITOR-2",
            party_names=["Erika Musterfrau"],
        )
        for _ in range(2)
    ]
    with logging_to(monkeypatch) as written:
        lines = CallLines(operations_of(Risk)["assess"], "call.answered")
        lines.write(items, [Rejection("no"), Rejection("no")], seconds=0.002)

    (line,) = written.lines
    assert line["payflow.operation"] == "risk.assess"
    assert line["payflow.payment_ids"] == [str(item.payment_id) for item in items]
    assert (line["payflow.items"], line["payflow.failures"], line["event.duration"]) == (
        2,
        {Rejection.code: 2},
        2_000_000,
    )
    for secret in ("Musterfrau", "ACC-DEBTOR-1", "ACC-CREDITOR-2"):
        assert secret not in json.dumps(line)


def test_the_payment_of_an_item_is_found_in_the_item_or_in_its_answer() -> None:
    sent = SendCode(payment_id=new_id())

    in_item = payment_id_of(operations_of(Confirm)["send_codes"])
    in_answer = payment_id_of(operations_of(Confirm)["confirm"])

    assert in_item is not None
    assert in_answer is not None
    assert in_item(sent, Rejection("no")) == sent.payment_id
    assert in_answer(None, Rejection("no")) is None


def test_events_that_were_handled_have_one_line_with_their_payments(monkeypatch: pytest.MonkeyPatch) -> None:
    events = [an_event(data={"payment_id": "p1"}), an_event(data={"actor": "alice", "detail": "signed in"})]
    with logging_to(monkeypatch) as written:
        write_events_line("audit", events)

    (line,) = written.lines
    assert (line["message"], line["payflow.consumer"], line["payflow.events"]) == ("events.handled", "audit", 2)
    assert line["payflow.payment_ids"] == ["p1"]
    assert "alice" not in json.dumps(line)
