"""Adapts the contract, and the messages of other banks, to the use cases: wires store, rail, clock and ids."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Final

import structlog
from prometheus_client import Counter, Gauge

from payflow.contracts.agents import AgentDirectory
from payflow.contracts.confirm import Confirm
from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import (
    BankStatus,
    EndReturn,
    Enquire,
    InstructionNotFound,
    InstructionPage,
    ListInstructions,
    ReturnEnding,
    SubmissionStatus,
    SubmitCreditTransfer,
    WithdrawEnding,
)
from payflow.contracts.sides import ListSides, SidesList
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import Unavailable, UnknownOutcome
from payflow.platform.context import current_traceparent
from payflow.platform.postgres import repeat_then_halve
from payflow.services.partner_bank.domain import CARE, IncomingTransfer, Pauses, Verdict
from payflow.services.partner_bank.ports import Rail, Store
from payflow.services.partner_bank.usecases import duties, incoming, outgoing, reads
from payflow.services.partner_bank.usecases.returns import Returns
from payflow.services.partner_bank.usecases.suspense import Suspense
from payflow.services.partner_bank.usecases.taken_back import TakenBack

log = structlog.get_logger(__name__)

_submitted: Final = Counter(
    "payflow_bank_submissions_total",
    "Payments handed to other banks, by what they said at once.",
    ["status"],
)
_received: Final = Counter(
    "payflow_incoming_payments_total", "Payments that other banks sent, by the ISO status told.", ["status"]
)


_open_incoming: Final = Gauge("payflow_incoming_open", "Incoming payments that are not where they stay.", ["state"])
_oldest_incoming: Final = Gauge(
    "payflow_oldest_incoming_age_seconds",
    "How long the oldest incoming payment that is not where it stays is in this state; 0: none.",
    ["state"],
)
_oldest_decided: Final = Gauge(
    "payflow_oldest_decided_incoming_age_seconds",
    "How long ago the review of the oldest payment was decided that is still in suspense; 0: there is none.",
)


class PartnerBankApi:
    """Implements contracts.partner_bank.PartnerBank and the duties that follow from it."""

    def __init__(
        self,
        *,
        store: Store,
        rail: Rail,
        agents: AgentDirectory,
        returns: Returns,
        taken_back: TakenBack,
        confirm: Confirm,
        clock: Clock,
        ids: Ids,
        pauses: Pauses,
        bank_timeout_s: float,
    ) -> None:
        self._store = store
        self._rail = rail
        self._agents = agents
        self._returns = returns
        self._taken_back = taken_back
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
        payment_ids = [query.payment_id for query in queries]
        answers = await outgoing.enquire(
            payment_ids=payment_ids,
            store=self._store,
            rail=self._rail,
            agents=self._agents,
            ids=self._ids,
            clock=self._clock,
            pauses=self._pauses,
        )
        others = [id for id, one in zip(payment_ids, answers, strict=True) if isinstance(one, InstructionNotFound)]
        if not others:
            return answers
        of_returns = dict(zip(others, await self._returns.enquire(others), strict=True))
        return [of_returns.get(id, answer) for id, answer in zip(payment_ids, answers, strict=True)]

    async def end_return(self, commands: list[EndReturn]) -> Answers[ReturnEnding]:
        answers = await self._taken_back.say(commands)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, ReturnEnding):
                event = "bank.return_ended" if answer.status is not BankStatus.UNKNOWN else "bank.return_end_requested"
                log.info(event, payment_id=str(command.payment_id), ended_by=command.ended_by)
        return answers

    async def withdraw_ending(self, commands: list[WithdrawEnding]) -> Answers[ReturnEnding]:
        answers = await self._taken_back.withdraw(commands)
        for command, answer in zip(commands, answers, strict=True):
            if isinstance(answer, ReturnEnding):
                log.info(
                    "bank.return_end_withdrawn",
                    payment_id=str(command.payment_id),
                    withdrawn_by=command.withdrawn_by,
                )
        return answers

    async def list_instructions(self, queries: list[ListInstructions]) -> Answers[InstructionPage]:
        return await reads.list_instructions(queries=queries, store=self._store, now=self._clock.now())

    async def list_sides(self, queries: list[ListSides]) -> Answers[SidesList]:
        return await reads.list_sides(queries=queries, store=self._store)

    async def enquire_unknown(self) -> None:
        """One round of the background duty: ask about what is due; failures of the store are waited out."""
        try:
            await duties.enquire_unknown(
                store=self._store,
                rail=self._rail,
                agents=self._agents,
                ids=self._ids,
                clock=self._clock,
                pauses=self._pauses,
            )
        except (Unavailable, UnknownOutcome) as error:
            log.warning("bank.enquiry_waits", error=repr(error))

    async def offer_returns(self) -> None:
        """One round of the background duty: send the returns that are due, and ask what became of them."""
        try:
            offers = await self._returns.offer()
        except (Unavailable, UnknownOutcome) as error:
            log.warning("bank.returns_wait", error=repr(error))
            return
        for one in offers.refused:
            log.error(
                "bank.return_refused",
                return_id=str(one.return_id),
                payment_id=str(one.payment_id),
                agent=one.agent_bic,
                reason_code=one.reason_code,
            )
        for one in offers.never_received:
            log.warning(
                "bank.return_never_received",
                return_id=str(one.return_id),
                payment_id=str(one.payment_id),
                agent=one.agent_bic,
                reason_code=one.last_answer,
                tries=one.never_received,
            )
        for one in offers.taken_twice:
            log.error(
                "bank.return_taken_twice",
                return_id=str(one.return_id),
                payment_id=str(one.payment_id),
                agent=one.agent_bic,
                reference=one.proof,
            )
        for one in offers.without_a_bank:
            log.error(
                "bank.return_without_a_bank",
                return_id=str(one.return_id),
                payment_id=str(one.payment_id),
                agent=one.agent_bic,
            )

    async def book_returns(self) -> None:
        """One round of the background duty: book what other banks have taken back."""
        try:
            refused = await self._returns.book()
        except (Unavailable, UnknownOutcome) as error:
            log.warning("bank.returns_wait", error=repr(error))
            return
        for return_id, code in refused:
            log.error("bank.return_refused_by_account", return_id=str(return_id), code=code)

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
        self,
        *,
        store: Store,
        settlement: incoming.Settlement,
        suspense: Suspense,
        own_bic: str,
        clock: Clock,
        pauses: Pauses,
    ) -> None:
        self._store = store
        self._settlement = settlement
        self._suspense = suspense
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

    async def look_after_suspense(self) -> int:
        """One round of the background duty: move money out of suspense whose review has been decided."""
        try:
            return await self._suspense.look_after()
        except (Unavailable, UnknownOutcome) as error:
            log.warning("bank.suspense_waits", error=repr(error))
            return 0
        finally:
            _oldest_decided.set(self._suspense.oldest_decided.total_seconds())

    async def measure_open_incoming(self) -> None:
        """Tell by metrics how many incoming payments are under way in each state, and for how long the oldest is."""
        found = await self._store.open_incoming()
        now = self._clock.now()
        for state in CARE:
            count, since = found.get(state, (0, now))
            _open_incoming.labels(state.value).set(count)
            _oldest_incoming.labels(state.value).set(max(0.0, (now - since).total_seconds()))
