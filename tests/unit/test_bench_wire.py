"""Payments on the wire: requests that say what was drawn, and answers read however they arrive."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from payflow_dev.bench.population import Payment, make_customers
from payflow_dev.bench.wire import (
    AnswerReader,
    Outcome,
    id_prefix,
    render_heads,
    render_templates,
    transaction_id,
    understand,
)

BODY = b'{"status":"SUCCESS","transaction_id":"b1-000000001"}'
ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
CHUNKED = b'HTTP/1.1 503 Service Unavailable\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'


def answers_in(*packets: bytes) -> list[tuple[int, bytes]]:
    reader = AnswerReader()
    return [(reader.status, reader.body) for packet in packets if reader.feed(packet)]


@pytest.mark.parametrize("place", range(1, len(ANSWER)))
def test_an_answer_cut_in_two_anywhere_is_read_once_it_is_whole(place: int) -> None:
    assert answers_in(ANSWER[:place], ANSWER[place:]) == [(200, BODY)]


@given(st.lists(st.integers(1, len(CHUNKED) - 1), unique=True).map(sorted))
def test_a_chunked_answer_is_read_in_any_packets(places: list[int]) -> None:
    ends = [*places, len(CHUNKED)]

    packets = [CHUNKED[start:end] for start, end in zip([0, *places], ends, strict=True)]

    assert answers_in(*packets) == [(503, b'{"a":1}')]


def test_answers_follow_one_another_on_one_connection() -> None:
    assert answers_in(ANSWER, CHUNKED, ANSWER) == [(200, BODY), (503, b'{"a":1}'), (200, BODY)]


def test_a_connection_that_the_server_will_close_is_known() -> None:
    reader = AnswerReader()
    reader.feed(ANSWER)
    kept = reader.keeps_alive

    reader.feed(ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    assert kept
    assert not reader.keeps_alive


def test_what_is_no_http_is_refused() -> None:
    with pytest.raises(ValueError, match="not an HTTP answer"):
        AnswerReader().feed(b"SSH-2.0-OpenSSH_9.2\r\n")


@pytest.mark.parametrize(
    ("status", "body", "outcome", "label"),
    [
        (200, b'{"status":"SUCCESS","amount":1.00}', Outcome.SUCCESS, ""),
        (202, b'{"status":"PENDING"}', Outcome.PENDING, ""),
        (200, b'{"status":"OTP_REQUIRED"}', Outcome.REFUSED, "200 OTP_REQUIRED"),
        (422, b'{"error":"INSUFFICIENT_FUNDS"}', Outcome.REFUSED, "422 INSUFFICIENT_FUNDS"),
        (429, b'{"error":"RATE_LIMITED"}', Outcome.REFUSED, "429 RATE_LIMITED"),
        (409, b'{"error":"PAYMENT_IN_PROGRESS"}', Outcome.UNKNOWN, "409 PAYMENT_IN_PROGRESS"),
        (503, b'{"error":"SERVICE_UNAVAILABLE"}', Outcome.UNKNOWN, "503 SERVICE_UNAVAILABLE"),
        (502, b"<html>Bad Gateway</html>", Outcome.UNKNOWN, "502"),
        (200, b'{"status":"healthy"}', Outcome.UNKNOWN, "200"),
        (500, b"[1]", Outcome.UNKNOWN, "500"),
    ],
)
def test_an_answer_is_acknowledged_refused_or_tells_nothing(
    status: int, body: bytes, outcome: Outcome, label: str
) -> None:
    assert understand(status, body) == (outcome, label)


def test_a_rendered_request_is_the_payment_with_its_length_key_and_token() -> None:
    customers = make_customers(count=2, run_id="abc123", seed=1)
    payment = Payment(1, customers[1].accounts[0], customers[0].accounts[0], 123_405)
    name = transaction_id(run_id="abc123", number=42).encode()

    heads = render_heads(authority="127.0.0.1:8080", tokens=["first", "second"])
    (template,) = render_templates(payments=[payment], customers=customers, id_length=len(name))
    head, _, body = (heads[template.head] + name + template.between + name + template.after).partition(b"\r\n\r\n")

    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /payment/confirm HTTP/1.1"
    assert "Authorization: Bearer second" in lines
    assert f"Idempotency-Key: {name.decode()}" in lines
    assert f"Content-Length: {len(body)}" in lines
    assert b'"amount":1234.05,' in body
    assert json.loads(body) == {
        "transaction_id": "babc123-000000042",
        "customer_id": customers[1].customer_id,
        "amount": 1234.05,
        "from_account": payment.debtor,
        "to_account": payment.creditor,
    }


@given(st.integers(0, 10**9 - 1))
def test_transaction_ids_have_one_length_and_the_run_s_own_beginning(number: int) -> None:
    name = transaction_id(run_id="abc123", number=number)

    assert len(name) == len("babc123-000000000")
    assert name.startswith(id_prefix("abc123"))
