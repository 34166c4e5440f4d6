"""The rail over HTTP: one XML message in a POST, the bank's word in its answer, and anything else is unknown."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import aiohttp
import structlog
from prometheus_client import Counter

from payflow.contracts.agents import Agent
from payflow.kernel.clock import Clock
from payflow.kernel.money import format_minor
from payflow.platform.tracing import Kind, Span, step
from payflow.services.partner_bank.domain import (
    SILENCE,
    BankWord,
    Instruction,
    Return,
    Word,
    same_bank,
    word_of,
)
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
    read_message,
)
from payflow.services.partner_bank.rails.iso20022.names import PACS_004, PACS_008, is_of_kind
from payflow.services.partner_bank.rails.iso20022.read import MESSAGE_MAX_BYTES
from payflow.services.partner_bank.rails.signing import (
    BANK_HEADER,
    SIGNATURE_HEADER,
    BankSecrets,
    is_answer_signed,
    sign,
)

log = structlog.get_logger(__name__)

_messages: Final = Counter(
    "payflow_bank_messages_total", "Messages to other banks by kind and outcome.", ["agent", "kind", "outcome"]
)


class _NoAnswer(Exception):
    """No word of the bank; the text is the outcome's name in logs and metrics."""


class HttpRail:
    """Sends messages to other banks (see ports.Rail): at most so many under way to each, each waited for so long.

    A time-out, a reset, an answer that is not 200, one that the bank has not signed for this very message, or one that
    is no pacs.002 about these payments leaves them unknown.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        own_bic: str,
        default_url: str,
        secrets: BankSecrets,
        clock: Clock,
        timeout_s: float,
        messages_in_flight: int,
    ) -> None:
        self._session = session
        self._own_bic = own_bic
        self._default_url = default_url
        self._secrets = secrets
        self._clock = clock
        self._timeout_s = timeout_s
        self._messages_in_flight = messages_in_flight
        self._places: dict[str, asyncio.Semaphore] = {}

    async def send(self, *, agent: Agent, instructions: Sequence[Instruction]) -> Mapping[UUID, BankWord]:
        """Send one pacs.008; the same instructions make the same bytes again."""
        ordered = sorted(instructions, key=lambda one: one.payment_id)
        head = Header(ordered[0].message_id or "", ordered[0].created_at, self._own_bic, agent.bic)
        message = CreditTransferMessage(head, [self._transfer(one) for one in ordered])
        asked = {one.payment_id: _query(one) for one in ordered}
        return await self._ask(agent, "pacs.008", build_credit_transfers(message), asked)

    async def enquire(
        self, *, agent: Agent, instructions: Sequence[Instruction], message_id: str
    ) -> Mapping[UUID, BankWord]:
        """Send one pacs.028."""
        return await self._enquire(agent, {one.payment_id: _query(one) for one in instructions}, message_id)

    async def send_returns(self, *, agent: Agent, returns: Sequence[Return]) -> Mapping[UUID, BankWord]:
        """Send one pacs.004; the same returns make the same bytes again."""
        ordered = sorted(returns, key=lambda one: one.return_id)
        head = Header(ordered[0].message_id, ordered[0].created_at, self._own_bic, agent.bic)
        body = build_returns(PaymentReturnMessage(head, [_return(one) for one in ordered]))
        return await self._ask(agent, "pacs.004", body, {one.return_id: _return_query(one) for one in ordered})

    async def enquire_returns(
        self, *, agent: Agent, returns: Sequence[Return], message_id: str
    ) -> Mapping[UUID, BankWord]:
        """Send one pacs.028 about returns."""
        return await self._enquire(agent, {one.return_id: _return_query(one) for one in returns}, message_id)

    async def _enquire(
        self, agent: Agent, asked: Mapping[UUID, StatusQuery], message_id: str
    ) -> Mapping[UUID, BankWord]:
        head = Header(message_id, self._clock.now(), self._own_bic, agent.bic)
        message = StatusRequestMessage(head, list(asked.values()))
        return await self._ask(agent, "pacs.028", build_status_request(message), asked)

    def _transfer(self, instruction: Instruction) -> CreditTransfer:
        parties = instruction.parties
        return CreditTransfer(
            instruction_id=instruction.instruction_id,
            end_to_end_id=instruction.end_to_end_id,
            transaction_id=instruction.payment_id.hex,
            uetr=instruction.uetr,
            amount=format_minor(instruction.amount_minor, instruction.currency),
            currency=instruction.currency,
            debtor_name=parties.debtor_name,
            debtor_account=parties.debtor_account,
            debtor_agent_bic=self._own_bic,
            creditor_name=parties.creditor_name,
            creditor_account=parties.creditor_account,
            creditor_agent_bic=instruction.agent_bic,
            remittance_information=parties.remittance_information,
        )

    async def _ask(
        self, agent: Agent, kind: str, body: bytes, asked: Mapping[UUID, StatusQuery]
    ) -> Mapping[UUID, BankWord]:
        outcome = "answered"
        # Our trace ends here: what the other bank does is its own business, and so are our ids ours.
        with step(f"bank {kind}", kind=Kind.CLIENT) as span:
            try:
                async with asyncio.timeout(self._timeout_s), self._place(agent):
                    answer = await self._post(agent, body)
                return words_in(answer, asked=asked, agent_bic=agent.bic, is_enquiry=kind == "pacs.028")
            except TimeoutError:
                outcome = "timed_out"
            except _NoAnswer as error:
                outcome = str(error)
            finally:
                _messages.labels(agent.bic, kind, outcome).inc()
                if span is not None:
                    _describe(span, agent=agent, transactions=len(asked), outcome=outcome)
        log.warning("bank.no_answer", agent=agent.bic, kind=kind, transactions=len(asked), outcome=outcome)
        return {}

    def _place(self, agent: Agent) -> asyncio.Semaphore:
        return self._places.setdefault(agent.bic, asyncio.Semaphore(self._messages_in_flight))

    async def _post(self, agent: Agent, body: bytes) -> bytes:
        signature = sign(body, bank_bic=self._own_bic, secret=self._secrets.of(agent.bic))
        headers = {"content-type": "application/xml", BANK_HEADER: self._own_bic, SIGNATURE_HEADER: signature}
        url = agent.url or self._default_url
        try:
            async with self._session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise _NoAnswer(f"status_{response.status}")
                answer = await _read_bounded(response)
                self._check_signature(answer, response.headers, agent=agent, request_signature=signature)
                return answer
        except aiohttp.ClientConnectorError:
            raise _NoAnswer("not_reached") from None
        except TimeoutError:
            raise
        except (aiohttp.ClientError, OSError):
            raise _NoAnswer("cut_off") from None

    def _check_signature(
        self, answer: bytes, headers: Mapping[str, str], *, agent: Agent, request_signature: str
    ) -> None:
        """Raises _NoAnswer unless the bank that was asked signed this answer to this message: nobody else's word about
        a payment may release or book its hold."""
        bic, signature = headers.get(BANK_HEADER, ""), headers.get(SIGNATURE_HEADER, "")
        if same_bank(bic, agent.bic) and is_answer_signed(
            answer,
            bank_bic=bic,
            secret=self._secrets.of(agent.bic),
            request_signature=request_signature,
            signature=signature,
        ):
            return
        log.error("bank.answer_not_signed", agent=agent.bic, cause="wrong" if signature else "missing")
        raise _NoAnswer("not_signed")


def _return(made: Return) -> PaymentReturn:
    return PaymentReturn(
        return_id=made.return_id.hex,
        end_to_end_id=made.end_to_end_id,
        uetr=made.uetr,
        amount=format_minor(made.amount_minor, made.currency),
        currency=made.currency,
        reason_code=made.return_reason,
    )


def _query(one: Instruction) -> StatusQuery:
    return StatusQuery(one.message_id, one.instruction_id, one.end_to_end_id, one.uetr, PACS_008)


def _return_query(one: Return) -> StatusQuery:
    return StatusQuery(one.message_id, one.return_id.hex, one.end_to_end_id, one.uetr, PACS_004)


def _describe(span: Span, *, agent: Agent, transactions: int, outcome: str) -> None:
    span.set("payflow.bank.agent", agent.bic)
    span.set("payflow.bank.outcome", outcome)
    span.set("payflow.items", transactions)
    if outcome != "answered":
        span.fail(outcome)


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > MESSAGE_MAX_BYTES:
            raise _NoAnswer("too_large")
        parts.append(part)
    return b"".join(parts)


def words_in(
    answer: bytes, *, asked: Mapping[UUID, StatusQuery], agent_bic: str, is_enquiry: bool
) -> dict[UUID, BankWord]:
    """The words of a pacs.002 about what was asked. A transaction whose ids contradict ours is about something else,
    and two words about one are none: both stay out. Raises _NoAnswer for what is no pacs.002 of this bank."""
    try:
        message = read_message(answer)
    except UnreadableMessage as error:
        log.warning("bank.unreadable_answer", agent=agent_bic, cause=str(error))
        raise _NoAnswer("unreadable") from None
    if not isinstance(message, StatusMessage):
        raise _NoAnswer("no_status")
    sender = message.header.instructing_bic
    if sender is not None and not same_bank(sender, agent_bic):
        raise _NoAnswer("other_bank")
    by_end_to_end_id = {query.end_to_end_id: (id, query) for id, query in asked.items()}
    words: dict[UUID, set[BankWord]] = {}
    for status in message.transactions:
        id, query = by_end_to_end_id.get(status.end_to_end_id, (None, None))
        if id is not None and query is not None and _is_about(status, query):
            word = word_of(status=status.status, reason_code=status.reason_code, is_enquiry=is_enquiry)
            words.setdefault(id, set()).add(word if _is_believed(word, status, query) else SILENCE)
    return {id: said.pop() for id, said in words.items() if len(said) == 1}


def _is_about(status: TransactionStatus, query: StatusQuery) -> bool:
    return all(
        theirs is None or theirs == ours
        for theirs, ours in (
            (status.uetr, query.uetr),
            (status.instruction_id, query.instruction_id),
            (status.original_message_id, query.original_message_id),
        )
    ) and not any(
        kind != query.original_name and status.original_name is not None and is_of_kind(status.original_name, kind)
        for kind in (PACS_004, PACS_008)
    )


def _is_believed(word: BankWord, status: TransactionStatus, query: StatusQuery) -> bool:
    """Whether the answer names what was asked about. A return has its end-to-end id and UETR from the bank's own
    payment, and the word could be about that: a final one has to name what is the return's alone."""
    if query.original_name != PACS_004 or word.word not in (Word.ACCEPTED, Word.REJECTED):
        return True
    return (
        status.instruction_id is not None
        or status.original_message_id is not None
        or (status.original_name is not None and is_of_kind(status.original_name, PACS_004))
    )
