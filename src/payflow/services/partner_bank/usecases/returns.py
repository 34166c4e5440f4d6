"""Returns of held money: stored, sent, asked about, and booked when the bank has taken its money back.

A return is sent first and asked about after: its payment's ids are what the bank itself gave, and a bank that is asked
about them before it has heard of the return may answer about the payment. One that is refused has its answer for good;
only then is the money offered anew, under new ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias
from uuid import UUID

from payflow.contracts.account import Account, Booked, ReturnFromSuspense
from payflow.contracts.agents import Agent, AgentDirectory
from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import BankStatus, InstructionNotFound, SubmissionStatus
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import Conflict, PayflowError, Rejection
from payflow.services.partner_bank.domain import (
    LIFE,
    BankWord,
    Pauses,
    Return,
    Status,
    Word,
    asked_by_operator,
    booked,
    in_chunks,
    message_id_of,
    offered_anew,
    put_on_the_wire,
    return_with_word,
    settled,
    tried_again,
)
from payflow.services.partner_bank.ports import Rail, Store
from payflow.services.partner_bank.usecases.events import IncomingEvents

# Longer than booking may take: meanwhile nobody else works on the return.
BUSY_S: Final = 15.0
PER_ROUND: Final = 200
TRANSACTIONS_PER_MESSAGE: Final = 250
_FINAL: Final = (Word.ACCEPTED, Word.REJECTED)
# However often a bank was asked: what a process that died has left is taken up when its claim has passed.
_NO_PAUSE: Final = Pauses(first_s=0.0, longest_s=0.0)
_After: TypeAlias = "Callable[[Return, BankWord, datetime], Return]"
_Ask: TypeAlias = "Callable[[Agent, list[Return]], Awaitable[Mapping[UUID, BankWord]]]"


@dataclass(slots=True)
class Offers:
    """One round of offering: the returns that were refused, those that never came as their bank says, those that it has
    taken although operators had its word that it has the money otherwise, and those whose bank is no longer in the
    directory."""

    refused: list[Return] = field(default_factory=list)
    never_received: list[Return] = field(default_factory=list)
    taken_twice: list[Return] = field(default_factory=list)
    without_a_bank: list[Return] = field(default_factory=list)


class Returns:
    """Offers held money back to its banks, and books what they have taken."""

    def __init__(
        self,
        *,
        store: Store,
        rail: Rail,
        agents: AgentDirectory,
        account: Account,
        events: IncomingEvents,
        ids: Ids,
        clock: Clock,
        pauses: Pauses,
    ) -> None:
        self._store = store
        self._rail = rail
        self._agents = agents
        self._account = account
        self._events = events
        self._ids = ids
        self._clock = clock
        self._pauses = pauses

    async def offer(self) -> Offers:
        """One round: send the returns that are due and were never sent, and ask about the others.

        That it is sent is stored before it is, so that what a process which died here has left is asked about, and
        sent again under the same ids where its bank says that it never came.
        """
        async with self._store.transaction() as book:
            now = self._clock.now()
            due = await book.lock_due_returns(Status.UNKNOWN, now=now, limit=PER_ROUND)
            await book.save_returns([put_on_the_wire(one, now=now, pauses=self._pauses) for one in due])
        never_sent, sent = [one for one in due if one.sent_at is None], [one for one in due if one.sent_at is not None]
        first_words, words = await asyncio.gather(self._send(never_sent), self._enquire_and_resend(sent))
        told = await self._store_words({**first_words, **words}, after=self._after_a_round)
        return Offers(
            refused=[one for one in told if one.status is Status.REJECTED],
            never_received=[one for one in told if one.status is Status.UNKNOWN],
            taken_twice=[one for one in told if one.proof is not None],
            without_a_bank=[one for one in due if self._agents.by_bic(one.agent_bic) is None],
        )

    async def enquire(self, return_ids: Sequence[UUID]) -> Answers[SubmissionStatus]:
        """What the banks say of returns: the stored word, or else, where one was sent, the answer to a question now.

        Items may be InstructionNotFound.
        """
        known = await self._store.find_returns(return_ids)
        await self._store_words(
            await self._enquire_and_resend(
                [one for one in known.values() if one.status is Status.UNKNOWN and one.sent_at is not None]
            ),
            after=self._after_an_operators_question,
        )
        known = await self._store.find_returns(return_ids)
        return [_status_of(known[id]) if id in known else InstructionNotFound() for id in return_ids]

    async def _send(self, returns: Sequence[Return]) -> dict[UUID, BankWord]:
        async def send(agent: Agent, batch: list[Return]) -> Mapping[UUID, BankWord]:
            return await self._rail.send_returns(agent=agent, returns=batch)

        by_message: dict[str, list[Return]] = {}
        for one in returns:
            by_message.setdefault(one.message_id, []).append(one)
        return await self._ask_each(list(by_message.values()), send)

    async def _enquire_and_resend(self, returns: Sequence[Return]) -> dict[UUID, BankWord]:
        async def enquire(agent: Agent, batch: list[Return]) -> Mapping[UUID, BankWord]:
            message_id = message_id_of(self._ids.new())
            return await self._rail.enquire_returns(agent=agent, returns=batch, message_id=message_id)

        by_agent: dict[str, list[Return]] = {}
        for one in returns:
            by_agent.setdefault(one.agent_bic, []).append(one)
        chunks = [chunk for batch in by_agent.values() for chunk in in_chunks(batch, TRANSACTIONS_PER_MESSAGE)]
        words = await self._ask_each(chunks, enquire)
        missing = await self._to_send_again([id for id, answer in words.items() if answer.word is Word.NOT_RECEIVED])
        # What it says to a second copy counts where it is final; otherwise it is still the return that never came.
        return {**words, **{id: word for id, word in (await self._send(missing)).items() if word.word in _FINAL}}

    async def _to_send_again(self, return_ids: Sequence[UUID]) -> list[Return]:
        """As they are now: while the bank was asked, an operator may have had its word that it has the money."""
        if not return_ids:
            return []
        known, now = await self._store.find_returns(return_ids), self._clock.now()
        return [one for one in known.values() if one.status is Status.UNKNOWN and one.waiting_request(now) is None]

    async def _ask_each(self, batches: Sequence[list[Return]], ask: _Ask) -> dict[UUID, BankWord]:
        agents = [self._agents.by_bic(batch[0].agent_bic) for batch in batches]
        asked = [ask(agent, batch) for agent, batch in zip(agents, batches, strict=True) if agent is not None]
        return {id: word for words in await asyncio.gather(*asked) for id, word in words.items()}

    def _after_a_round(self, made: Return, answer: BankWord, now: datetime) -> Return:
        return return_with_word(made, answer, now=now, pauses=self._pauses)

    def _after_an_operators_question(self, made: Return, answer: BankWord, now: datetime) -> Return:
        """As after a round; but who asks often does not make it be sent more seldom."""
        if answer.word is Word.NOT_RECEIVED and not LIFE.is_final(made.status):
            return asked_by_operator(made, now=now, pauses=self._pauses)
        return self._after_a_round(made, answer, now)

    async def _store_words(self, words: Mapping[UUID, BankWord], *, after: _After) -> list[Return]:
        """Store words, the first final one of each return for good; the returns that were changed by them, and those
        that their bank has taken although it is known to have the money otherwise.

        In the same transaction the money of a refused one is offered anew: never without that refusal.
        """
        said = {id: word for id, word in words.items() if word.word is not Word.UNKNOWN}
        if not said:
            return []
        changed: list[Return] = []
        async with self._store.transaction() as book:
            now = self._clock.now()
            for id, one in (await book.lock_returns(list(said))).items():
                told = after(one, said[id], now)
                if told is one:
                    changed += [one] if one.proof is not None and said[id].word is Word.ACCEPTED else []
                    continue
                changed.append(told)
                await book.save_returns([told])
                if told.status is Status.REJECTED:
                    await book.insert_return(offered_anew(told, message_id=message_id_of(self._ids.new()), now=now))
        return changed

    async def book(self) -> list[tuple[UUID, str]]:
        """One round: book the returns that their banks have taken, and tell of them; which ones account refused.

        A refused one stays due, and somebody has to look at it: its money went another way.
        """
        async with self._store.transaction() as book:
            now = self._clock.now()
            due = await book.lock_due_returns(Status.ACCEPTED, now=now, limit=PER_ROUND)
            claimed = [tried_again(one, now=now, pauses=_NO_PAUSE, busy_s=BUSY_S) for one in due]
            await book.save_returns(claimed)
        if not claimed:
            return []
        answers = await self._account.return_from_suspense([_return_of(one) for one in claimed])
        await self._store_booked(
            [one for one, answer in zip(claimed, answers, strict=True) if isinstance(answer, Booked)]
        )
        return [
            (one.return_id, answer.code)
            for one, answer in zip(claimed, answers, strict=True)
            if isinstance(answer, Rejection | Conflict)
        ]

    async def _store_booked(self, done: Sequence[Return]) -> None:
        now = self._clock.now()
        async with self._store.transaction() as book:
            payments = await book.lock([one.payment_id for one in done])
            returns = await book.lock_returns([one.return_id for one in done])
            for one in done:
                current, incoming = returns[one.return_id], payments[one.payment_id]
                if current.attempts != one.attempts or current.booked_at is not None:
                    continue
                after = settled(incoming, status=Status.RETURNED, reason_code=incoming.reason_code, now=now)
                await book.save([after])
                await book.save_returns([booked(current, now=now)])
                await book.append_events([self._events.event_of(after, None, now=now, traceparent="")])


def _return_of(made: Return) -> ReturnFromSuspense:
    return ReturnFromSuspense(
        payment_id=made.payment_id,
        fencing_token=made.attempts,
        agent_bic=made.agent_bic,
        amount_minor=made.amount_minor,
        currency=made.currency,
    )


def _status_of(made: Return) -> SubmissionStatus | PayflowError:
    return SubmissionStatus(
        payment_id=made.return_id,
        status=BankStatus(made.status.value),
        reason_code=made.reason_code,
        answered_at=made.answered_at,
    )
