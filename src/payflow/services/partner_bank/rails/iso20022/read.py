"""XML from outside as messages: bounded, without entities, DTDs or network, and checked against the ISO schema."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Final, TypeAlias

from lxml import etree

from payflow.services.partner_bank.rails.iso20022.messages import (
    CreditTransfer,
    CreditTransferMessage,
    Header,
    PaymentReturn,
    PaymentReturnMessage,
    StatusMessage,
    StatusQuery,
    StatusRequestMessage,
    TransactionStatus,
)
from payflow.services.partner_bank.rails.iso20022.names import PACS_002, PACS_004, PACS_008, SPOKEN, name_of

Element = etree._Element
Message: TypeAlias = CreditTransferMessage | PaymentReturnMessage | StatusMessage | StatusRequestMessage

MESSAGE_MAX_BYTES: Final = 1024 * 1024
TRANSACTIONS_MAX: Final = 1000


class UnreadableMessage(Exception):
    """The bytes are no message that we speak; the text says why, without quoting the message."""


def read_message(data: bytes, *, spoken: Sequence[str] = SPOKEN) -> Message:
    """Read a pacs.008.001.08, pacs.002.001.10 or pacs.028.001.03, or else what is `spoken`. Raises UnreadableMessage.

    Amounts stay text: what a currency's decimals allow is decided for each transaction by itself.
    """
    document = _parse(data)
    name = name_of(etree.QName(document).namespace)
    if name not in spoken:
        known = ", ".join(spoken)
        raise UnreadableMessage(f"{name or 'This document'} is not a message that is spoken here; spoken: {known}.")
    schema = _schema(name)
    if not schema.validate(document):
        raise UnreadableMessage(f"The message does not fit the schema {name}: {_first_error(schema)}.")
    body = document[0]
    namespace = f"{{{etree.QName(document).namespace}}}"
    reader = _Reader(namespace)
    if name == PACS_008:
        return reader.credit_transfers(body)
    if name == PACS_004:
        return reader.returns(body)
    return reader.statuses(body) if name == PACS_002 else reader.status_request(body)


def _parse(data: bytes) -> Element:
    if len(data) > MESSAGE_MAX_BYTES:
        raise UnreadableMessage(f"The message is larger than {MESSAGE_MAX_BYTES // 1024} KB.")
    # Before the parser sees it: a document type is where entities come from. A NUL would be another encoding than the
    # UTF-8 that the parser is told to take, in which the words could hide.
    if b"<!DOCTYPE" in data or b"\0" in data:
        raise UnreadableMessage("A message is UTF-8 and has no document type declaration.")
    parser = etree.XMLParser(
        encoding="utf-8",
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        return etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise UnreadableMessage("The message is not well-formed XML.") from None


@cache
def _schema(name: str) -> etree.XMLSchema:
    data = resources.files(__package__).joinpath("xsd", f"{name}.xsd").read_bytes()
    return etree.XMLSchema(etree.fromstring(data))


def _first_error(schema: etree.XMLSchema) -> str:
    """Where the first error is and of which kind; not the text, which quotes the message."""
    for error in schema.error_log:  # type: ignore[attr-defined]
        name = (error.path or "").split("/")[-1].strip("*[]0123456789")
        return f"line {error.line}, {error.type_name}" + (f" at {name}" if name else "")
    return "the schema does not say where"


class _Reader:
    """Reads the elements of one namespace. The schema has seen to what must be there."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def credit_transfers(self, body: Element) -> CreditTransferMessage:
        header = self._one(body, "GrpHdr")
        transactions = self._bounded(body, "CdtTrfTxInf")
        self._check_count(header, transactions)
        return CreditTransferMessage(self._header(header), [self._credit_transfer(one) for one in transactions])

    def _credit_transfer(self, element: Element) -> CreditTransfer:
        amount = self._one(element, "IntrBkSttlmAmt")
        return CreditTransfer(
            instruction_id=self._text(element, "PmtId", "InstrId"),
            end_to_end_id=self._text(element, "PmtId", "EndToEndId") or "",
            transaction_id=self._text(element, "PmtId", "TxId"),
            uetr=self._text(element, "PmtId", "UETR"),
            amount=(amount.text or "").strip(),
            currency=amount.get("Ccy", ""),
            debtor_name=self._text(element, "Dbtr", "Nm"),
            debtor_account=self._account(element, "DbtrAcct"),
            debtor_agent_bic=self._bic(element, "DbtrAgt"),
            creditor_name=self._text(element, "Cdtr", "Nm"),
            creditor_account=self._account(element, "CdtrAcct"),
            creditor_agent_bic=self._bic(element, "CdtrAgt"),
            remittance_information=self._text(element, "RmtInf", "Ustrd"),
        )

    def returns(self, body: Element) -> PaymentReturnMessage:
        header = self._one(body, "GrpHdr")
        transactions = self._bounded(body, "TxInf")
        self._check_count(header, transactions)
        return PaymentReturnMessage(self._header(header), [self._payment_return(one) for one in transactions])

    def _payment_return(self, element: Element) -> PaymentReturn:
        amount = self._one(element, "RtrdIntrBkSttlmAmt")
        return PaymentReturn(
            return_id=self._text(element, "RtrId") or "",
            end_to_end_id=self._text(element, "OrgnlEndToEndId") or "",
            uetr=self._text(element, "OrgnlUETR"),
            amount=(amount.text or "").strip(),
            currency=amount.get("Ccy", ""),
            reason_code=self._text(element, "RtrRsnInf", "Rsn", "Cd") or "",
        )

    def statuses(self, body: Element) -> StatusMessage:
        transactions = [
            TransactionStatus(
                original_message_id=self._text(one, "OrgnlGrpInf", "OrgnlMsgId"),
                instruction_id=self._text(one, "OrgnlInstrId"),
                end_to_end_id=self._text(one, "OrgnlEndToEndId"),
                uetr=self._text(one, "OrgnlUETR"),
                status=self._text(one, "TxSts"),
                reason_code=self._text(one, "StsRsnInf", "Rsn", "Cd") or self._text(one, "StsRsnInf", "Rsn", "Prtry"),
                original_name=self._text(one, "OrgnlGrpInf", "OrgnlMsgNmId"),
            )
            for one in self._bounded(body, "TxInfAndSts")
        ]
        return StatusMessage(self._header(self._one(body, "GrpHdr")), transactions)

    def status_request(self, body: Element) -> StatusRequestMessage:
        transactions = [
            StatusQuery(
                original_message_id=self._text(one, "OrgnlGrpInf", "OrgnlMsgId"),
                instruction_id=self._text(one, "OrgnlInstrId"),
                end_to_end_id=self._text(one, "OrgnlEndToEndId"),
                uetr=self._text(one, "OrgnlUETR"),
                original_name=self._text(one, "OrgnlGrpInf", "OrgnlMsgNmId") or PACS_008,
            )
            for one in self._bounded(body, "TxInf")
        ]
        return StatusRequestMessage(self._header(self._one(body, "GrpHdr")), transactions)

    def _check_count(self, header: Element, transactions: Sequence[Element]) -> None:
        if self._text(header, "NbOfTxs") != str(len(transactions)):
            raise UnreadableMessage("NbOfTxs is not the number of transactions.")

    def _header(self, element: Element) -> Header:
        return Header(
            message_id=self._text(element, "MsgId") or "",
            created_at=_instant(self._text(element, "CreDtTm") or ""),
            instructing_bic=self._bic(element, "InstgAgt"),
            instructed_bic=self._bic(element, "InstdAgt"),
        )

    def _bounded(self, body: Element, tag: str) -> list[Element]:
        found = body.findall(self._namespace + tag)
        if len(found) > TRANSACTIONS_MAX:
            raise UnreadableMessage(f"A message has at most {TRANSACTIONS_MAX} transactions.")
        return found

    def _one(self, parent: Element, tag: str) -> Element:
        element = parent.find(self._namespace + tag)
        if element is None:
            raise UnreadableMessage(f"{tag} is missing.")
        return element

    def _text(self, parent: Element, *path: str) -> str | None:
        text = parent.findtext("/".join(self._namespace + tag for tag in path))
        return (text.strip() or None) if text is not None else None

    def _bic(self, parent: Element, tag: str) -> str | None:
        return self._text(parent, tag, "FinInstnId", "BICFI")

    def _account(self, parent: Element, tag: str) -> str | None:
        return self._text(parent, tag, "Id", "IBAN") or self._text(parent, tag, "Id", "Othr", "Id")


def _instant(text: str) -> datetime:
    """An ISODateTime; one without an offset is taken as UTC."""
    try:
        at = datetime.fromisoformat(text)
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UnreadableMessage("CreDtTm is not an instant.") from None
