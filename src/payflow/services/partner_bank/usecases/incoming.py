"""Money from other banks: stored first, screened, booked once per end-to-end id, and answered the same each time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final, NamedTuple, TypeGuard
from uuid import UUID

import msgspec

from payflow.contracts.account import Account, CreditIncoming
from payflow.contracts.ofac import Ofac, Screened, ScreeningOutcome, ScreenPayment
from payflow.contracts.problems import problem_for
from payflow.kernel.clock import Clock
from payflow.kernel.errors import PayflowError, Rejection, Unavailable, UnknownOutcome
from payflow.services.partner_bank.domain import (
    DUPLICATE_VERDICT,
    NEVER_RECEIVED_VERDICT,
    IncomingTransfer,
    Instruction,
    Pauses,
    Status,
    Verdict,
    incoming_amount,
    incoming_instruction,
    incoming_payment_id,
    is_same_transfer,
    refuse_incoming,
    settled,
    tried_again,
    verdict_of,
)
from payflow.services.partner_bank.ports import InstructionTransaction, Store
from payflow.services.partner_bank.usecases.events import TOLD, IncomingEvents

# Longer than screening and booking may take together: meanwhile nobody else works on the payment.
BUSY_S: Final = 15.0
PER_ROUND: Final = 200


class End(NamedTuple):
    """What became of a payment: its final status, the reason of a refusal, and whose account was credited."""

    status: Status
    reason_code: str | None = None
    customer_id: str | None = None


class Settlement:
    """Screens and books claimed incoming payments."""

    def __init__(
        self, *, store: Store, account: Account, ofac: Ofac, events: IncomingEvents, clock: Clock, pauses: Pauses
    ) -> None:
        self._store = store
        self._account = account
        self._ofac = ofac
        self._events = events
        self._clock = clock
        self._pauses = pauses

    async def settle(self, claimed: Sequence[Instruction], *, traceparent: str) -> dict[UUID, Instruction]:
        """The claimed payments as they then are: booked, refused, or still pending where a service did not answer.

        The screening's outcome is stored before the booking, so that a repeat books to the same place.
        """
        if not claimed:
            return {}
        screened = await self._screen(claimed)
        ends = await self._book(screened)
        return await self._store_ends(claimed, ends, traceparent=traceparent)

    async def _screen(self, claimed: Sequence[Instruction]) -> list[Instruction]:
        unscreened = [one for one in claimed if one.is_suspicious is None]
        answers = await self._ofac.screen([_screening_of(one) for one in unscreened]) if unscreened else []
        decided = [
            replace(one, is_suspicious=answer.outcome is not ScreeningOutcome.CLEAR)
            for one, answer in zip(unscreened, answers, strict=True)
            if isinstance(answer, Screened)
        ]
        if decided:
            async with self._store.transaction() as book:
                known = await book.lock([one.payment_id for one in decided])
                decided = [one for one in decided if is_ours(known.get(one.payment_id), one)]
                await book.save(decided)
        return [*(one for one in claimed if one.is_suspicious is not None), *decided]

    async def _book(self, screened: Sequence[Instruction]) -> dict[UUID, End]:
        if not screened:
            return {}
        answers = await self._account.credit_incoming([_credit_of(one) for one in screened])
        ends: dict[UUID, End] = {}
        for one, answer in zip(screened, answers, strict=True):
            if isinstance(answer, Rejection):
                ends[one.payment_id] = End(Status.REJECTED, problem_for(answer.code).iso_reason or "NARR")
            elif not isinstance(answer, PayflowError):
                status = Status.HELD_IN_SUSPENSE if one.is_suspicious else Status.CREDITED
                ends[one.payment_id] = End(status, customer_id=answer.customer_id)
        return ends

    async def _store_ends(
        self,
        claimed: Sequence[Instruction],
        ends: Mapping[UUID, End],
        *,
        traceparent: str,
    ) -> dict[UUID, Instruction]:
        now = self._clock.now()
        async with self._store.transaction() as book:
            known = await book.lock([one.payment_id for one in claimed])
            changed: list[Instruction] = []
            for one in claimed:
                current = known[one.payment_id]
                if not is_ours(current, one):
                    continue
                end = ends.get(one.payment_id)
                if end is None:
                    after = replace(current, next_attempt_at=now + self._pauses.after(current.attempts - 1))
                else:
                    after = settled(current, status=end.status, reason_code=end.reason_code, now=now)
                changed.append(after)
                known[one.payment_id] = after
            await book.save(changed)
            await book.append_events(
                [
                    self._events.event_of(one, ends[one.payment_id].customer_id, now=now, traceparent=traceparent)
                    for one in changed
                    if one.status in TOLD
                ],
            )
        return known


def is_ours(current: Instruction | None, claimed: Instruction) -> TypeGuard[Instruction]:
    """Whether the payment is still where it was under our claim: each claim counts one attempt more."""
    return current is not None and current.status is claimed.status and current.attempts == claimed.attempts


def _screening_of(instruction: Instruction) -> ScreenPayment:
    parties = instruction.parties
    return ScreenPayment(
        payment_id=instruction.payment_id,
        customer_id=f"bank:{instruction.agent_bic}",
        names=[name for name in (parties.debtor_name, parties.creditor_name) if name],
    )


def _credit_of(instruction: Instruction) -> CreditIncoming:
    return CreditIncoming(
        payment_id=instruction.payment_id,
        fencing_token=instruction.attempts,
        creditor_account=instruction.parties.creditor_account,
        amount_minor=instruction.amount_minor,
        currency=instruction.currency,
        agent_bic=instruction.agent_bic,
        to_suspense=bool(instruction.is_suspicious),
    )


def read_transfers(
    *, transfers: Sequence[IncomingTransfer], agent_bic: str, message_id: str, own_bic: str, now: datetime
) -> list[Instruction | Verdict]:
    """The instructions that a bank's message asks for; a verdict where the amount cannot be read."""

    def read(transfer: IncomingTransfer) -> Instruction | Verdict:
        amount = incoming_amount(transfer)
        if isinstance(amount, str):
            return Verdict("RJCT", amount)
        reason = refuse_incoming(transfer, own_bic=own_bic)
        return incoming_instruction(
            transfer, amount=amount, agent_bic=agent_bic, message_id=message_id, reason_code=reason, now=now
        )

    return [read(transfer) for transfer in transfers]


async def store_received(*, received: Sequence[Instruction], store: Store, now: datetime, pauses: Pauses) -> Received:
    """Store what came in before anything is done with it, and claim what is to be worked on now.

    Raises Unavailable or UnknownOutcome: the other bank has no answer then and asks again.
    """
    first = {instruction.payment_id: instruction for instruction in reversed(received)}
    async with store.transaction() as book:
        await book.insert(list(first.values()))
        known = await book.lock(list(first))
        claimed = await _claim(book, list(known.values()), now=now, pauses=pauses)
    return Received(known=known, claimed=claimed)


class Received(msgspec.Struct, frozen=True):
    """What is stored of a message's payments, and which of them this process now works on."""

    known: dict[UUID, Instruction]
    claimed: list[Instruction]


async def settle_received(
    *, received: Sequence[Instruction | Verdict], stored: Received, settlement: Settlement, traceparent: str
) -> list[Verdict]:
    """Screen and book the claimed payments, and give the verdict of every transaction, in order.

    A verdict is PDNG where account, ofac or the store did not answer; the other bank asks again, and so do we.
    """
    known = {**stored.known, **await _settle_if_possible(settlement, stored.claimed, traceparent)}

    def verdict(item: Instruction | Verdict) -> Verdict:
        if isinstance(item, Verdict):
            return item
        current = known[item.payment_id]
        return verdict_of(current) if is_same_transfer(current, item) else DUPLICATE_VERDICT

    return [verdict(item) for item in received]


async def answer_enquiry(
    *,
    end_to_end_ids: Sequence[str],
    agent_bic: str,
    store: Store,
    settlement: Settlement,
    now: datetime,
    pauses: Pauses,
    traceparent: str,
) -> list[Verdict]:
    """What became of payments that a bank sent us: the stored verdict, "never received", or one more try now."""
    ids = [incoming_payment_id(agent_bic=agent_bic, end_to_end_id=id) for id in end_to_end_ids]
    known = await store.find(ids)
    due = [one.payment_id for one in known.values() if _is_due(one, now)]
    if due:
        async with store.transaction() as book:
            locked = await book.lock(due)
            claimed = await _claim(book, list(locked.values()), now=now, pauses=pauses)
        known.update(await _settle_if_possible(settlement, claimed, traceparent))
    return [verdict_of(known[id]) if id in known else NEVER_RECEIVED_VERDICT for id in ids]


async def settle_pending(*, store: Store, settlement: Settlement, clock: Clock, pauses: Pauses) -> int:
    """Work again on payments that could not be settled when they came; returns how many were tried."""
    async with store.transaction() as book:
        now = clock.now()
        due = await book.lock_due([Status.PENDING], now=now, limit=PER_ROUND)
        claimed = await _claim(book, due, now=now, pauses=pauses)
    await settlement.settle(claimed, traceparent="")
    return len(claimed)


def _is_due(instruction: Instruction, now: datetime) -> bool:
    due_at = instruction.next_attempt_at
    return instruction.status is Status.PENDING and due_at is not None and due_at <= now


async def _claim(
    book: InstructionTransaction, instructions: Sequence[Instruction], *, now: datetime, pauses: Pauses
) -> list[Instruction]:
    claimed = [tried_again(one, now=now, pauses=pauses, busy_s=BUSY_S) for one in instructions if _is_due(one, now)]
    await book.save(claimed)
    return claimed


async def _settle_if_possible(
    settlement: Settlement, claimed: Sequence[Instruction], traceparent: str
) -> dict[UUID, Instruction]:
    try:
        return await settlement.settle(claimed, traceparent=traceparent)
    except (Unavailable, UnknownOutcome):
        return {}
