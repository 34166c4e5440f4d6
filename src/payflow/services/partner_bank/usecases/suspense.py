"""Money in suspense: it waits for its review, and then goes to its creditor, or back to the bank that sent it.

That it goes back is stored together with its return (see returns), which is then offered to the bank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from payflow.contracts.account import Account, Booked, CreditFromSuspense
from payflow.contracts.ofac import GetDecision, Ofac, PaymentDecision, ReviewState
from payflow.contracts.problems import problem_for
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError, Rejection
from payflow.services.partner_bank.domain import (
    REGULATORY_REASON,
    Instruction,
    Pauses,
    Status,
    first_return,
    message_id_of,
    settled,
    tried_again,
)
from payflow.services.partner_bank.ports import Store
from payflow.services.partner_bank.usecases.events import IncomingEvents
from payflow.services.partner_bank.usecases.incoming import End, is_ours

# Longer than booking may take: meanwhile nobody else works on the payment.
BUSY_S: Final = 15.0
PER_PAGE: Final = 500
# However often it was tried: what a process that died has left is taken up when its claim has passed.
_NO_PAUSE: Final = Pauses(first_s=0.0, longest_s=0.0)


class Suspense:
    """Asks how the reviews of held payments stand, and moves the money of those that are decided.

    `oldest_decided` tells, after a round or the failure of one, how long ago the oldest review was decided whose money
    is not moved.
    """

    def __init__(
        self,
        *,
        store: Store,
        account: Account,
        ofac: Ofac,
        events: IncomingEvents,
        ids: Ids,
        clock: Clock,
        pauses: Pauses,
    ) -> None:
        self._store = store
        self._account = account
        self._ofac = ofac
        self._events = events
        self._ids = ids
        self._clock = clock
        self._pauses = pauses
        self.oldest_decided = timedelta(0)

    async def look_after(self) -> int:
        """One round: ofac is asked about each held payment; returns how many were taken up, decided and due.

        Nothing is written, nor decrypted, of a payment whose review waits. Each taking-up counts one attempt, whose
        number is the fencing token at account; what cannot go on is due again after a pause, and where this process
        dies, when its claim has passed.
        """
        taken_up, oldest, after = 0, timedelta(0), None
        while page := await self._store.held_in_suspense(after=after, limit=PER_PAGE):
            decided = await self._decisions(page)
            self.oldest_decided = max(oldest, self._longest(decided.values()))
            claimed = await self._claim(decided)
            moved = await self._move(claimed, decided) if claimed else set()
            taken_up += len(claimed)
            oldest = max(oldest, self._longest(one for id, one in decided.items() if id not in moved))
            after = page[-1]
        self.oldest_decided = oldest
        return taken_up

    def _longest(self, decided: Iterable[PaymentDecision]) -> timedelta:
        now = self._clock.now()
        return max((now - one.decided_at for one in decided if one.decided_at is not None), default=timedelta(0))

    async def _decisions(self, payment_ids: Sequence[UUID]) -> dict[UUID, PaymentDecision]:
        answers = await self._ofac.get_decisions([GetDecision(payment_id=id) for id in payment_ids])
        return {
            answer.payment_id: answer
            for answer in answers
            if isinstance(answer, PaymentDecision) and answer.state is not ReviewState.OPEN
        }

    async def _claim(self, decided: Mapping[UUID, PaymentDecision]) -> list[Instruction]:
        if not decided:
            return []
        async with self._store.transaction() as book:
            now = self._clock.now()
            due = [one for one in (await book.lock(list(decided))).values() if _is_due(one, now)]
            claimed = [tried_again(one, now=now, pauses=_NO_PAUSE, busy_s=BUSY_S) for one in due]
            await book.save(claimed)
            # Before anything is booked under it: no statement has a line that leads nowhere.
            await book.note_exits([one.payment_id for one in claimed])
        return claimed

    async def _move(self, claimed: Sequence[Instruction], decided: Mapping[UUID, PaymentDecision]) -> set[UUID]:
        cleared = [one for one in claimed if decided[one.payment_id].state is ReviewState.CLEARED]
        answers = await self._account.credit_from_suspense([_credit_of(one) for one in cleared]) if cleared else []
        ends = {one.payment_id: _end_of(answer) for one, answer in zip(cleared, answers, strict=True)}
        for one in claimed:
            if decided[one.payment_id].state is ReviewState.BLOCKED:
                ends[one.payment_id] = End(Status.RETURNING, REGULATORY_REASON)
        await self._store_ends(claimed, ends)
        return {payment_id for payment_id, end in ends.items() if end is not None}

    async def _store_ends(self, claimed: Sequence[Instruction], ends: Mapping[UUID, End | None]) -> None:
        now = self._clock.now()
        async with self._store.transaction() as book:
            known = await book.lock([one.payment_id for one in claimed])
            for one in claimed:
                current = known.get(one.payment_id)
                if not is_ours(current, one):
                    continue
                end = ends.get(one.payment_id)
                if end is None:
                    pause = self._pauses.after(current.attempts - 1)
                    await book.save([replace(current, next_attempt_at=now + pause)])
                    continue
                after = settled(current, status=end.status, reason_code=end.reason_code, now=now)
                await book.save([after])
                if end.status is Status.RETURNING:
                    message_id = message_id_of(self._ids.new())
                    reason = end.reason_code or REGULATORY_REASON
                    await book.insert_return(first_return(after, reason=reason, message_id=message_id, now=now))
                else:
                    await book.append_events([self._events.event_of(after, end.customer_id, now=now, traceparent="")])


def _is_due(instruction: Instruction, now: datetime) -> bool:
    """Whether the payment is held and nobody has it in hand. The release before this one leaves no instant."""
    due_at = instruction.next_attempt_at
    return instruction.status is Status.HELD_IN_SUSPENSE and (due_at is None or due_at <= now)


def _end_of(answer: Booked | PayflowError) -> End | None:
    """What a credit's answer makes of a cleared payment: what the creditor's account refuses for good goes back."""
    if isinstance(answer, Booked):
        return End(Status.CREDITED, customer_id=answer.customer_id)
    if isinstance(answer, Rejection):
        return End(Status.RETURNING, problem_for(answer.code).iso_reason or "NARR")
    return None


def _credit_of(instruction: Instruction) -> CreditFromSuspense:
    return CreditFromSuspense(
        payment_id=instruction.payment_id,
        fencing_token=instruction.attempts,
        creditor_account=instruction.parties.creditor_account,
        amount_minor=instruction.amount_minor,
        currency=instruction.currency,
    )
