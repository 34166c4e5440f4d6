"""Messages as XML: small builder functions in the order of the schemas."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from lxml import etree

from payflow.services.partner_bank.domain import is_iban
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
from payflow.services.partner_bank.rails.iso20022.names import (
    PACS_002,
    PACS_004,
    PACS_008,
    PACS_028,
    namespace_of,
)

Element = etree._Element

# Settled over the account that the instructing bank has at the instructed one.
_SETTLEMENT_METHOD: Final = "INDA"
_CHARGES: Final = "SLEV"


def build_credit_transfers(message: CreditTransferMessage) -> bytes:
    """A pacs.008.001.08. The same message gives the same bytes."""
    document, body, value_date = _begin_settled(PACS_008, "FIToFICstmrCdtTrf", message)
    for transaction in message.transactions:
        _add_transfer(_child(body, "CdtTrfTxInf"), transaction, value_date)
    return _as_bytes(document)


def _begin_settled(
    name: str, tag: str, message: CreditTransferMessage | PaymentReturnMessage
) -> tuple[Element, Element, str]:
    """The document, its body with the header of a message that settles money, and its value date."""
    document, body = _document(name, tag)
    header = _header(body, message.header)
    _add(header, "NbOfTxs", str(len(message.transactions)))
    _add(_child(header, "SttlmInf"), "SttlmMtd", _SETTLEMENT_METHOD)
    _add_agents(header, message.header)
    return document, body, message.header.created_at.date().isoformat()


def _add_transfer(parent: Element, transaction: CreditTransfer, value_date: str) -> None:
    ids = _child(parent, "PmtId")
    _add(ids, "InstrId", transaction.instruction_id)
    _add(ids, "EndToEndId", transaction.end_to_end_id)
    _add(ids, "TxId", transaction.transaction_id)
    _add(ids, "UETR", transaction.uetr)
    amount = _child(parent, "IntrBkSttlmAmt")
    amount.set("Ccy", transaction.currency)
    amount.text = transaction.amount
    _add(parent, "IntrBkSttlmDt", value_date)
    _add(parent, "ChrgBr", _CHARGES)
    _add(_child(parent, "Dbtr"), "Nm", transaction.debtor_name)
    _add_account(parent, "DbtrAcct", transaction.debtor_account)
    _add_agent(parent, "DbtrAgt", transaction.debtor_agent_bic)
    _add_agent(parent, "CdtrAgt", transaction.creditor_agent_bic)
    _add(_child(parent, "Cdtr"), "Nm", transaction.creditor_name)
    _add_account(parent, "CdtrAcct", transaction.creditor_account)
    if transaction.remittance_information is not None:
        _add(_child(parent, "RmtInf"), "Ustrd", transaction.remittance_information)


def build_returns(message: PaymentReturnMessage) -> bytes:
    """A pacs.004.001.09. The same message gives the same bytes."""
    document, body, value_date = _begin_settled(PACS_004, "PmtRtr", message)
    for transaction in message.transactions:
        _add_return(_child(body, "TxInf"), transaction, value_date)
    return _as_bytes(document)


def _add_return(parent: Element, transaction: PaymentReturn, value_date: str) -> None:
    _add(parent, "RtrId", transaction.return_id)
    _add(parent, "OrgnlEndToEndId", transaction.end_to_end_id)
    _add(parent, "OrgnlUETR", transaction.uetr)
    for tag in ("OrgnlIntrBkSttlmAmt", "RtrdIntrBkSttlmAmt"):
        amount = _child(parent, tag)
        amount.set("Ccy", transaction.currency)
        amount.text = transaction.amount
    _add(parent, "IntrBkSttlmDt", value_date)
    _add(_child(_child(parent, "RtrRsnInf"), "Rsn"), "Cd", transaction.reason_code)


def build_statuses(message: StatusMessage) -> bytes:
    """A pacs.002.001.10."""
    document, body = _document(PACS_002, "FIToFIPmtStsRpt")
    _add_agents(_header(body, message.header), message.header)
    for transaction in message.transactions:
        _add_status(_child(body, "TxInfAndSts"), transaction)
    return _as_bytes(document)


def _add_status(parent: Element, transaction: TransactionStatus) -> None:
    _add_original(parent, transaction)
    _add(parent, "TxSts", transaction.status)
    if transaction.reason_code is not None:
        _add(_child(_child(parent, "StsRsnInf"), "Rsn"), "Cd", transaction.reason_code)


def build_status_request(message: StatusRequestMessage) -> bytes:
    """A pacs.028.001.03."""
    document, body = _document(PACS_028, "FIToFIPmtStsReq")
    _add_agents(_header(body, message.header), message.header)
    for transaction in message.transactions:
        _add_original(_child(body, "TxInf"), transaction)
    return _as_bytes(document)


def _add_original(parent: Element, original: TransactionStatus | StatusQuery) -> None:
    if original.original_message_id is not None:
        group = _child(parent, "OrgnlGrpInf")
        _add(group, "OrgnlMsgId", original.original_message_id)
        _add(group, "OrgnlMsgNmId", original.original_name or PACS_008)
    _add(parent, "OrgnlInstrId", original.instruction_id)
    _add(parent, "OrgnlEndToEndId", original.end_to_end_id)
    _add(parent, "OrgnlUETR", original.uetr)


def _document(name: str, body: str) -> tuple[Element, Element]:
    namespace = namespace_of(name)
    document = etree.Element(f"{{{namespace}}}Document", nsmap={None: namespace})  # type: ignore[dict-item]
    return document, _child(document, body)


def _header(body: Element, header: Header) -> Element:
    element = _child(body, "GrpHdr")
    _add(element, "MsgId", header.message_id)
    _add(element, "CreDtTm", _instant(header.created_at))
    return element


def _add_agents(parent: Element, header: Header) -> None:
    if header.instructing_bic is not None:
        _add_agent(parent, "InstgAgt", header.instructing_bic)
    if header.instructed_bic is not None:
        _add_agent(parent, "InstdAgt", header.instructed_bic)


def _add_agent(parent: Element, tag: str, bic: str | None) -> None:
    _add(_child(_child(parent, tag), "FinInstnId"), "BICFI", bic)


def _add_account(parent: Element, tag: str, number: str | None) -> None:
    if number is None:
        return
    identification = _child(_child(parent, tag), "Id")
    if is_iban(number):
        _add(identification, "IBAN", number)
    else:
        _add(_child(identification, "Othr"), "Id", number)


def _child(parent: Element, tag: str) -> Element:
    return etree.SubElement(parent, f"{parent.tag[: parent.tag.index('}') + 1]}{tag}")


def _add(parent: Element, tag: str, text: str | None) -> None:
    if text is not None:
        _child(parent, tag).text = text


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _as_bytes(document: Element) -> bytes:
    return etree.tostring(document, xml_declaration=True, encoding="UTF-8")
