"""What other banks send us: POST /inbound/iso20022 with a signed XML message, answered with a pacs.002."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from payflow.contracts.agents import AgentDirectory
from payflow.kernel.clock import Clock, Ids
from payflow.platform.http.admission import Admission
from payflow.platform.http.asgi import (
    ASGIApp,
    Headers,
    Receive,
    Scope,
    Send,
    bytes_response,
    header,
    read_body,
    send_response,
)
from payflow.platform.http.errors import MethodNotAllowed, NotFound, UnreadableBody, UnsupportedMediaType
from payflow.platform.http.requests import ROUTE
from payflow.platform.rpc.identity import ServiceIdentityRequired
from payflow.services.partner_bank.domain import (
    IncomingTransfer,
    Parties,
    Verdict,
    account_number,
    message_id_of,
    plain_text,
    same_bank,
)
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransfer,
    CreditTransferMessage,
    Header,
    StatusMessage,
    StatusQuery,
    StatusRequestMessage,
    TransactionStatus,
    UnreadableMessage,
    build_statuses,
    read_message,
)
from payflow.services.partner_bank.rails.iso20022.read import MESSAGE_MAX_BYTES
from payflow.services.partner_bank.rails.signing import (
    BANK_HEADER,
    SIGNATURE_HEADER,
    BankSecrets,
    is_signed,
    sign_answer,
)

PATH: Final = "/inbound/iso20022"
_XML: Final = frozenset({"application/xml", "text/xml"})
# Each message is up to a thousand payments: a few at once are plenty, and the others wait their turn or are refused.
MESSAGES_AT_ONCE: Final = 8
MESSAGES_WAITING: Final = 32


class BankSignatureRequired(ServiceIdentityRequired):
    """The message is not signed by a bank that we know."""


class Receiver(Protocol):
    """What is done with the transactions of a message: one verdict each, in order."""

    async def receive(
        self, transfers: Sequence[IncomingTransfer], *, agent_bic: str, message_id: str
    ) -> list[Verdict]: ...

    async def answer_enquiry(self, end_to_end_ids: Sequence[str], *, agent_bic: str) -> list[Verdict]: ...


class InboundApp:
    """The ASGI application for other banks' messages. Raises the errors that the edge answers as problems."""

    def __init__(
        self,
        *,
        receiver: Receiver,
        agents: AgentDirectory,
        secrets: BankSecrets,
        own_bic: str,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._receiver = receiver
        self._agents = agents
        self._secrets = secrets
        self._own_bic = own_bic
        self._clock = clock
        self._ids = ids
        self._answer: ASGIApp = Admission(MESSAGES_AT_ONCE, MESSAGES_WAITING, name="banks").wrap(self._admitted)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != PATH:
            raise NotFound
        scope[ROUTE] = PATH
        if scope["method"] != "POST":
            raise MethodNotAllowed(allow=("POST",))
        media_type = (header(scope, b"content-type") or b"").split(b";")[0].strip().lower()
        if media_type.decode("latin-1") not in _XML:
            raise UnsupportedMediaType("Send Content-Type: application/xml.")
        await self._answer(scope, receive, send)

    async def _admitted(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, limit_bytes=MESSAGE_MAX_BYTES)
        agent_bic = self._sender_of(scope, body)
        answer = await self._answer_message(body, agent_bic)
        headers = self._signed_for(scope, answer, agent_bic)
        await send_response(send, bytes_response(200, answer, content_type=b"application/xml", headers=headers))

    def _signed_for(self, scope: Scope, answer: bytes, agent_bic: str) -> Headers:
        """Our signature of the answer, which holds for the message in this request and for no other."""
        signature = sign_answer(
            answer,
            bank_bic=self._own_bic,
            secret=self._secrets.of(agent_bic),
            request_signature=(header(scope, SIGNATURE_HEADER.encode()) or b"").decode("latin-1"),
        )
        return [(BANK_HEADER.encode(), self._own_bic.encode()), (SIGNATURE_HEADER.encode(), signature.encode())]

    def _sender_of(self, scope: Scope, body: bytes) -> str:
        """The BIC of the bank that signed the body. Raises BankSignatureRequired, before anything was parsed."""
        bic = (header(scope, BANK_HEADER.encode()) or b"").decode("latin-1")
        signature = (header(scope, SIGNATURE_HEADER.encode()) or b"").decode("latin-1")
        agent = self._agents.by_bic(bic) if bic else None
        if agent is None or not is_signed(body, bank_bic=bic, secret=self._secrets.of(agent.bic), signature=signature):
            raise BankSignatureRequired(f"Sign the message: {BANK_HEADER} and {SIGNATURE_HEADER}.")
        return agent.bic

    async def _answer_message(self, body: bytes, agent_bic: str) -> bytes:
        try:
            message = read_message(body)
        except UnreadableMessage as error:
            raise UnreadableBody(str(error)) from None
        sender, receiver = message.header.instructing_bic, message.header.instructed_bic
        if sender is not None and not same_bank(sender, agent_bic):
            raise UnreadableBody("InstgAgt is not the bank that signed the message.")
        if receiver is not None and not same_bank(receiver, self._own_bic):
            raise UnreadableBody("InstdAgt is not this bank.")
        if isinstance(message, CreditTransferMessage):
            statuses = await self._receive(message, agent_bic)
        elif isinstance(message, StatusRequestMessage):
            statuses = await self._enquire(message, agent_bic)
        else:
            raise UnreadableBody("A status message is read here only as the answer to a message of ours.")
        head = Header(message_id_of(self._ids.new()), self._clock.now(), self._own_bic, agent_bic)
        return build_statuses(StatusMessage(head, statuses))

    async def _receive(self, message: CreditTransferMessage, agent_bic: str) -> list[TransactionStatus]:
        transfers = [_incoming(one) for one in message.transactions]
        message_id = message.header.message_id
        verdicts = await self._receiver.receive(transfers, agent_bic=agent_bic, message_id=message_id)
        return [
            _status(StatusQuery(message_id, one.instruction_id, one.end_to_end_id, one.uetr), verdict)
            for one, verdict in zip(message.transactions, verdicts, strict=True)
        ]

    async def _enquire(self, message: StatusRequestMessage, agent_bic: str) -> list[TransactionStatus]:
        identifiers = [one.end_to_end_id or "" for one in message.transactions]
        if not all(identifiers):
            raise UnreadableBody("Every transaction needs its OrgnlEndToEndId.")
        verdicts = await self._receiver.answer_enquiry(identifiers, agent_bic=agent_bic)
        return [_status(one, verdict) for one, verdict in zip(message.transactions, verdicts, strict=True)]


def _incoming(transfer: CreditTransfer) -> IncomingTransfer:
    return IncomingTransfer(
        end_to_end_id=transfer.end_to_end_id,
        instruction_id=transfer.instruction_id,
        uetr=transfer.uetr,
        amount=transfer.amount,
        currency=transfer.currency,
        creditor_agent_bic=transfer.creditor_agent_bic,
        parties=Parties(
            debtor_name=plain_text(transfer.debtor_name),
            debtor_account=transfer.debtor_account,
            creditor_name=plain_text(transfer.creditor_name),
            creditor_account=account_number(transfer.creditor_account or ""),
            remittance_information=plain_text(transfer.remittance_information),
        ),
    )


def _status(original: StatusQuery, verdict: Verdict) -> TransactionStatus:
    return TransactionStatus(
        original_message_id=original.original_message_id,
        instruction_id=original.instruction_id,
        end_to_end_id=original.end_to_end_id,
        uetr=original.uetr,
        status=verdict.status,
        reason_code=verdict.reason_code,
        original_name=original.original_name,
    )
