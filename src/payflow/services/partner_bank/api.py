"""Adapts the contract, and the messages of other banks, to the use cases: wires store, rail, clock and ids."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter

from payflow.contracts.agents import AgentDirectory
from payflow.contracts.confirm import Confirm
from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import (
    Enquire,
    InstructionPage,
    ListInstructions,
    SubmissionStatus,
    SubmitCreditTransfer,
)
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.platform.context import current_traceparent
from payflow.platform.postgres import repeat_then_halve
from payflow.services.partner_bank.domain import IncomingTransfer, Pauses, Verdict
from payflow.services.partner_bank.ports import Rail, Store
from payflow.services.partner_bank.usecases import duties, incoming, outgoing, reads

log = structlog.get_logger(__name__)

_submitted: Final = Counter(
    "payflow_bank_submissions_total",
    "Payments handed to other banks, by what they said at once.",
    ["status"],
)
_received: Final = Counter(
    "payflow_incoming_payments_total", "Payments that other banks sent, by the ISO status told.", ["status"]
)


class PartnerBankApi:
    """Implements contracts.partner_bank.PartnerBank and the duties that follow from it."""

    def __init__(
        self,
        *,
        store: Store,
        rail: Rail,
        agents: AgentDirectory,
        confirm: Confirm,
        clock: Clock,
        ids: Ids,
        pauses: Pauses,
        bank_timeout_s: float,
    ) -> None:
        self._store = store
        self._rail = rail
        self._agents = agents
        self._confirm = confirm
        self._clock = clock
        self._ids = ids
        self._pauses = pauses
        # The first enquiry comes when the answer to the sending has been waited for, not into the middle of it.
        self._enquire_after_s = bank_timeout_s + pauses.first_s

    async def submit(self, commands: list[SubmitCreditTransfer]) -> Answers[SubmissionStatus]:
        opened = await repeat_then_halve(
            lambda batch: outgoing.open_submissions(
                commands=batch,
                store=self._store,
                agents=self._agents,
                ids=self._ids,
                now=self._clock.now(),
                enquire_after_s=self._enquire_after_s,
            ),
            commands,
        )
        answers = await outgoing.send_opened(
            opened=opened,
            store=self._store,
            rail=self._rail,
            agents=self._agents,
            ids=self._ids,
            clock=self._clock,
            pauses=self._pauses,
        )
        statuses = Tally(answer.status for answer in answers if isinstance(answer, SubmissionStatus))
        for status, count in statuses.items():
            _submitted.labels(status.value).inc(count)
        return answers

    async def enquire(self, queries: list[Enquire]) -> Answers[SubmissionStatus]:
        return await outgoing.enquire(
            payment_ids=[query.payment_id for query in queries],
            store=self._store,
            rail=self._rail,
            agents=self._agents,
            ids=self._ids,
            clock=self._clock,
            pauses=self._pauses,
        )

    async def list_instructions(self, queries: list[ListInstructions]) -> Answers[InstructionPage]:
        return await reads.list_instructions(queries=queries, store=self._store)

    async def enquire_unknown(self) -> int:
        """One round of the background duty: ask about what is due; failures of the store are waited out."""
        try:
            return await duties.enquire_unknown(
                store=self._store,
                rail=self._rail,
                agents=self._agents,
                ids=self._ids,
                clock=self._clock,
                pauses=self._pauses,
            )
        except (Unavailable, UnknownOutcome) as error:
            log.warning("bank.enquiry_waits", error=repr(error))
            return 0

    async def deliver_answers(self) -> int:
        """One round of the background duty: tell confirm what it may not have heard."""
        try:
            delivery = await duties.deliver_answers(
                store=self._store, confirm=self._confirm, clock=self._clock, pauses=self._pauses
            )
        except (Unavailable, UnknownOutcome) as error:
            log.warning("bank.delivery_waits", error=repr(error))
            return 0
        for payment_id, code in delivery.refused:
            log.error("bank.answer_refused_by_confirm", payment_id=str(payment_id), code=code)
        return delivery.delivered


class InboundApi:
    """Takes other banks' messages (see rails.inbound.Receiver)."""

    def __init__(
        self, *, store: Store, settlement: incoming.Settlement, own_bic: str, clock: Clock, pauses: Pauses
    ) -> None:
        self._store = store
        self._settlement = settlement
        self._own_bic = own_bic
        self._clock = clock
        self._pauses = pauses

    async def receive(self, transfers: Sequence[IncomingTransfer], *, agent_bic: str, message_id: str) -> list[Verdict]:
        """Store, screen and book; a verdict each. Raises Unavailable or UnknownOutcome when nothing could be stored."""
        received = incoming.read_transfers(
            transfers=transfers,
            agent_bic=agent_bic,
            message_id=message_id,
            own_bic=self._own_bic,
            now=self._clock.now(),
        )
        stored = await incoming.store_received(
            received=[one for one in received if not isinstance(one, Verdict)],
            store=self._store,
            now=self._clock.now(),
            pauses=self._pauses,
        )
        verdicts = await incoming.settle_received(
            received=received, stored=stored, settlement=self._settlement, traceparent=current_traceparent.get()
        )
        for status, count in Tally(verdict.status for verdict in verdicts).items():
            _received.labels(status).inc(count)
        return verdicts

    async def answer_enquiry(self, end_to_end_ids: Sequence[str], *, agent_bic: str) -> list[Verdict]:
        """What became of payments that this bank sent us."""
        return await incoming.answer_enquiry(
            end_to_end_ids=end_to_end_ids,
            agent_bic=agent_bic,
            store=self._store,
            settlement=self._settlement,
            now=self._clock.now(),
            pauses=self._pauses,
            traceparent=current_traceparent.get(),
        )

    async def settle_pending(self) -> int:
        """One round of the background duty: work again on what could not be settled when it came."""
        try:
            return await incoming.settle_pending(
                store=self._store, settlement=self._settlement, clock=self._clock, pauses=self._pauses
            )
        except (Unavailable, UnknownOutcome) as error:
            log.warning("bank.settlement_waits", error=repr(error))
            return 0
