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
from payflow.services.partner_bank.domain import BankWord, Instruction, same_bank, word_of
from payflow.services.partner_bank.rails.iso20022 import (
    CreditTransfer,
    CreditTransferMessage,
    Header,
    StatusMessage,
    StatusQuery,
    StatusRequestMessage,
    TransactionStatus,
    UnreadableMessage,
    build_credit_transfers,
    build_status_request,
    read_message,
)
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
        first = ordered[0]
        message = CreditTransferMessage(
            Header(first.message_id or "", first.created_at, self._own_bic, agent.bic),
            [self._transfer(one) for one in ordered],
        )
        return await self._ask(agent, "pacs.008", build_credit_transfers(message), ordered)

    async def enquire(
        self, *, agent: Agent, instructions: Sequence[Instruction], message_id: str
    ) -> Mapping[UUID, BankWord]:
        """Send one pacs.028."""
        message = StatusRequestMessage(
            Header(message_id, self._clock.now(), self._own_bic, agent.bic),
            [StatusQuery(one.message_id, one.instruction_id, one.end_to_end_id, one.uetr) for one in instructions],
        )
        return await self._ask(agent, "pacs.028", build_status_request(message), instructions)

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
        self, agent: Agent, kind: str, body: bytes, instructions: Sequence[Instruction]
    ) -> Mapping[UUID, BankWord]:
        outcome = "answered"
        # Our trace ends here: what the other bank does is its own business, and so are our ids ours.
        with step(f"bank {kind}", kind=Kind.CLIENT) as span:
            try:
                async with asyncio.timeout(self._timeout_s), self._place(agent):
                    answer = await self._post(agent, body)
                return words_in(answer, instructions=instructions, agent_bic=agent.bic, is_enquiry=kind == "pacs.028")
            except TimeoutError:
                outcome = "timed_out"
            except _NoAnswer as error:
                outcome = str(error)
            finally:
                _messages.labels(agent.bic, kind, outcome).inc()
                if span is not None:
                    _describe(span, agent=agent, transactions=len(instructions), outcome=outcome)
        log.warning("bank.no_answer", agent=agent.bic, kind=kind, transactions=len(instructions), outcome=outcome)
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
    answer: bytes, *, instructions: Sequence[Instruction], agent_bic: str, is_enquiry: bool
) -> dict[UUID, BankWord]:
    """The words of a pacs.002 about these payments. A transaction whose ids contradict ours is about another payment,
    and two words about one payment are none: both stay out. Raises _NoAnswer for what is no pacs.002 of this bank."""
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
    by_end_to_end_id = {one.end_to_end_id: one for one in instructions}
    words: dict[UUID, set[BankWord]] = {}
    for status in message.transactions:
        instruction = by_end_to_end_id.get(status.end_to_end_id or "")
        if instruction is not None and _is_about(status, instruction):
            word = word_of(status=status.status, reason_code=status.reason_code, is_enquiry=is_enquiry)
            words.setdefault(instruction.payment_id, set()).add(word)
    return {payment_id: said.pop() for payment_id, said in words.items() if len(said) == 1}


def _is_about(status: TransactionStatus, instruction: Instruction) -> bool:
    return all(
        theirs is None or theirs == ours
        for theirs, ours in (
            (status.uetr, instruction.uetr),
            (status.instruction_id, instruction.instruction_id),
            (status.original_message_id, instruction.message_id),
        )
    )
