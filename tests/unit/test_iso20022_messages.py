"""Messages between banks: what we build fits the ISO schemas and reads back the same; what is hostile is refused."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from payflow.kernel.iso4217 import DECIMALS
from payflow.kernel.money import DIGITS_MAX, Money, format_minor
from payflow.services.partner_bank.domain import IncomingTransfer, Parties, incoming_amount, plain_text, uetr_of
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransfer,
    CreditTransferMessage,
    Header,
    PaymentReturn,
    PaymentReturnMessage,
    StatusMessage,
    StatusQuery,
    StatusRequestMessage,
    TransactionStatus,
    UnreadableMessage,
    build_credit_transfers,
    build_returns,
    build_status_request,
    build_statuses,
    read_message,
)
from payflow.services.partner_bank.rails.iso20022.names import PACS_004
from tests.builders import NOON, new_id

SAMPLES = Path(__file__).parents[1] / "data" / "iso20022"
HEADER = Header("PF0123456789abcdef", NOON, "PAYFDEFFXXX", "NORDDEFFXXX")


def a_transfer(
    *,
    amount: str = "10.50",
    currency: str = "EUR",
    creditor_account: str = "DE08990100100000001001",
    creditor_name: str | None = "Erika Musterfrau",
    remittance: str | None = "Invoice 7",
) -> CreditTransfer:
    payment_id = new_id()
    return CreditTransfer(
        instruction_id=payment_id.hex,
        end_to_end_id=payment_id.hex,
        transaction_id=payment_id.hex,
        uetr=uetr_of(payment_id),
        amount=amount,
        currency=currency,
        debtor_name="Ada Byron",
        debtor_account="ACC001",
        debtor_agent_bic="PAYFDEFFXXX",
        creditor_name=creditor_name,
        creditor_account=creditor_account,
        creditor_agent_bic="NORDDEFFXXX",
        remittance_information=remittance,
    )


def schema_errors(data: bytes) -> list[str]:
    document = etree.fromstring(data)
    name = (etree.QName(document).namespace or "").rsplit(":", 1)[1]
    package = "payflow.services.partner_bank.rails.iso20022"
    schema = etree.XMLSchema(etree.fromstring(resources.files(package).joinpath("xsd", f"{name}.xsd").read_bytes()))
    schema.validate(document)
    return [error.message for error in schema.error_log]


def test_a_credit_transfer_fits_the_schema_and_reads_back_the_same() -> None:
    transfers = [
        a_transfer(),
        a_transfer(creditor_account="1000200300", creditor_name=None, remittance=None),
        a_transfer(amount="5", currency="JPY"),
    ]
    message = CreditTransferMessage(HEADER, transfers)

    data = build_credit_transfers(message)

    assert schema_errors(data) == []
    assert read_message(data) == message


def test_the_same_message_is_built_to_the_same_bytes() -> None:
    message = CreditTransferMessage(HEADER, [a_transfer()])

    assert build_credit_transfers(message) == build_credit_transfers(message)


def a_return(*, uetr: str | None = None, amount: str = "25.00", currency: str = "EUR") -> PaymentReturn:
    return PaymentReturn(
        return_id=new_id().hex, end_to_end_id="e1", uetr=uetr, amount=amount, currency=currency, reason_code="RR04"
    )


def test_a_return_fits_the_schema_and_reads_back_the_same_where_it_is_spoken() -> None:
    returns = [a_return(), a_return(uetr=uetr_of(new_id())), a_return(amount="5", currency="JPY")]
    message = PaymentReturnMessage(HEADER, returns)

    data = build_returns(message)

    assert schema_errors(data) == []
    assert data == build_returns(message)
    assert read_message(data, spoken=["pacs.004.001.09"]) == message
    with pytest.raises(UnreadableMessage, match=re.escape("pacs.004.001.09 is not a message")):
        read_message(data)


@pytest.mark.parametrize(
    ("whole", "broken"),
    [
        (b"<NbOfTxs>1<", b"<NbOfTxs>2<"),
        (b">25.00</RtrdIntrBkSttlmAmt>", b">-25.00</RtrdIntrBkSttlmAmt>"),
        (b"<Cd>RR04</Cd>", b"<Cd>TOOLONG</Cd>"),
        (b"<OrgnlEndToEndId>e1</OrgnlEndToEndId>", b""),
    ],
    ids=["a wrong number of transactions", "a negative amount", "no code", "no original"],
)
def test_what_is_no_valid_return_is_refused(whole: bytes, broken: bytes) -> None:
    data = build_returns(PaymentReturnMessage(HEADER, [a_return()]))
    assert whole in data

    with pytest.raises(UnreadableMessage):
        read_message(data.replace(whole, broken), spoken=["pacs.004.001.09"])


def test_a_status_report_fits_the_schema_and_reads_back_the_same() -> None:
    message = StatusMessage(
        HEADER,
        [
            TransactionStatus("PF1", "i1", "e1", uetr_of(new_id()), "ACSC", original_name="pacs.008.001.08"),
            TransactionStatus("PF1", None, "e2", None, "RJCT", "AC04", original_name="pacs.004.001.09"),
            TransactionStatus(None, None, "e3", None, "PDNG"),
        ],
    )

    data = build_statuses(message)

    assert schema_errors(data) == []
    assert read_message(data) == message


def test_a_status_request_fits_the_schema_and_reads_back_the_same() -> None:
    queries = [StatusQuery("PF1", "i1", "e1", uetr_of(new_id())), StatusQuery("PF2", "r1", "e2", None, PACS_004)]
    message = StatusRequestMessage(HEADER, queries)

    data = build_status_request(message)

    assert schema_errors(data) == []
    assert read_message(data) == message


@given(
    name=st.text(max_size=200),
    remittance=st.text(max_size=200),
    minor_units=st.integers(min_value=1, max_value=10**DIGITS_MAX - 1),
    currency=st.sampled_from(sorted(DECIMALS)),
)
def test_whatever_a_customer_writes_the_message_fits_the_schema(
    name: str, remittance: str, minor_units: int, currency: str
) -> None:
    transfer = replace(
        a_transfer(amount=format_minor(minor_units, currency), currency=currency),
        debtor_name=plain_text(name),
        remittance_information=plain_text(remittance),
    )

    data = build_credit_transfers(CreditTransferMessage(HEADER, [transfer]))

    read = read_message(data)
    assert schema_errors(data) == []
    assert isinstance(read, CreditTransferMessage)
    assert read.transactions == [transfer]
    assert incoming_amount(_incoming(read.transactions[0])) == Money(minor_units, currency)


def _incoming(transfer: CreditTransfer) -> IncomingTransfer:
    parties = Parties(debtor_name="A", debtor_account=None, creditor_name="B", creditor_account="C")
    return IncomingTransfer("e", None, None, transfer.amount, transfer.currency, None, parties)


@pytest.mark.parametrize(
    ("sample", "kind", "words"),
    [
        ("pacs.008.001.08", CreditTransferMessage, [("Scenario02EtoEId001", "510000.74", "USD")]),
        ("pacs.028.001.03", StatusRequestMessage, [("Scenario4EndToEndId001", None, None)]),
        ("pacs.002.001.10_ACSC", StatusMessage, [(None, "ACSC", None)]),
        ("pacs.002.001.10_ACTC", StatusMessage, [(None, "ACTC", None)]),
    ],
)
def test_messages_of_other_networks_are_read(sample: str, kind: type, words: list[tuple[str | None, ...]]) -> None:
    message = read_message((SAMPLES / f"{sample}.xml").read_bytes())

    assert isinstance(message, kind)
    read = [
        (
            one.end_to_end_id,
            getattr(one, "amount", None) or getattr(one, "status", None),
            getattr(one, "currency", None),
        )
        for one in message.transactions
    ]
    assert read == words


def test_the_parties_of_a_foreign_credit_transfer_are_read() -> None:
    message = read_message((SAMPLES / "pacs.008.001.08.xml").read_bytes())

    assert isinstance(message, CreditTransferMessage)
    (transfer,) = message.transactions
    assert (transfer.debtor_name, transfer.debtor_account) == ("Corporation A", "5647772655")
    assert (transfer.creditor_name, transfer.creditor_account) == ("Corporation B", "567876543")
    assert message.header.created_at == datetime(2025, 3, 10, 9, tzinfo=timezone(timedelta(hours=-4)))
    assert message.header.created_at.tzinfo is UTC


@pytest.mark.parametrize("sample", ["pacs.004.001.10_AC04", "camt.056.001.08_DUPL"])
def test_a_message_that_is_not_spoken_is_named_in_the_refusal(sample: str) -> None:
    with pytest.raises(UnreadableMessage, match=sample.split("_")[0]):
        read_message((SAMPLES / f"{sample}.xml").read_bytes())


VALID = build_credit_transfers(CreditTransferMessage(HEADER, [a_transfer()]))
LAUGHS = b'<!DOCTYPE Document [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
OUTSIDE = b'<!DOCTYPE Document [<!ENTITY a SYSTEM "file:///etc/passwd">]>'


def _with_prolog(prolog: bytes) -> bytes:
    return VALID.replace(b"?>", b"?>" + prolog, 1).replace(b"Ada Byron", b"&a;", 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"pay me",
        VALID[:-20],
        _with_prolog(LAUGHS),
        _with_prolog(OUTSIDE),
        VALID.replace(b"Ada Byron", b"&undefined;"),
        VALID.decode().replace("UTF-8", "UTF-16").encode("utf-16"),
        VALID.replace(b"Ada Byron", b"\xff\xfe"),
        VALID.replace(b"<NbOfTxs>1<", b"<NbOfTxs>2<"),
        VALID.replace(b"10.50", b"-10.50"),
        VALID.replace(b"10.50", b"1e3"),
        VALID.replace(b"<Nm>Ada Byron</Nm>", b"<Nm>Ada Byron</Nm><Nm>Somebody Else</Nm>"),
        VALID.replace(b"<ChrgBr>SLEV</ChrgBr>", b"<ChrgBr>MINE</ChrgBr>"),
        VALID.replace(b"urn:iso:std:iso:20022:tech:xsd:pacs.008.001.08", b"urn:example:pacs.008.001.08"),
        VALID.replace(b"2026-03-02T12:00:00.000Z", b"0001-01-01T00:00:00+14:00"),
        b"<a>" * 5000 + b"</a>" * 5000,
        b"<!--" + b" " * 1024 * 1024 + b"-->" + VALID.split(b"?>", 1)[1],
    ],
    ids=[
        "nothing",
        "no XML",
        "cut off",
        "entities",
        "an entity of a file",
        "an undefined entity",
        "another encoding",
        "broken UTF-8",
        "a wrong number of transactions",
        "a negative amount",
        "an exponent",
        "two debtors",
        "an unknown code",
        "another namespace",
        "an instant before all time",
        "a deep tree",
        "a large message",
    ],
)
def test_what_is_no_valid_message_is_refused(data: bytes) -> None:
    with pytest.raises(UnreadableMessage):
        read_message(data)


def test_a_refusal_does_not_quote_the_message() -> None:
    data = VALID.replace(b"<Nm>Ada Byron</Nm>", b"<Name>Ada Byron</Name>")

    with pytest.raises(UnreadableMessage) as refusal:
        read_message(data)

    assert "Ada" not in str(refusal.value)
    assert "SCHEMAV" in str(refusal.value)


@pytest.mark.parametrize(
    ("amount", "currency", "expected"),
    [
        ("10.5", "EUR", Money(1050, "EUR")),
        ("10", "JPY", Money(10, "JPY")),
        ("1.234", "KWD", Money(1234, "KWD")),
        ("10.5", "JPY", "AM12"),
        ("10.505", "EUR", "AM12"),
        ("0", "EUR", "AM12"),
        ("123456789012345678", "JPY", "AM12"),
        ("1.00", "ABC", "AM11"),
    ],
)
def test_an_amount_is_read_exactly_or_refused_with_its_reason(amount: str, currency: str, expected: object) -> None:
    transfer = _incoming(a_transfer(amount=amount, currency=currency))

    assert incoming_amount(transfer) == expected
