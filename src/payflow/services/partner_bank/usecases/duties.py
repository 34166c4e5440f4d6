"""What goes on in the background until it is done: asking about unknown payments, and telling confirm the answers."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from payflow.contracts.account import StaleCommand
from payflow.contracts.agents import AgentDirectory
from payflow.contracts.confirm import Confirm, PaymentInProgress, RecordBankAnswer
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import Conflict, PayflowError, Rejection
from payflow.services.partner_bank.domain import (
    Instruction,
    Pauses,
    Status,
    tried_again,
    with_answer_delivered,
)
from payflow.services.partner_bank.ports import Rail, Store
from payflow.services.partner_bank.usecases.outgoing import enquire_and_resend, store_words

PER_ROUND: Final = 500
# Conflicts that pass; any other refusal is confirm's last word, and repeating the answer would not change it.
_PASSING: Final = (PaymentInProgress, StaleCommand)


async def enquire_unknown(
    *, store: Store, rail: Rail, agents: AgentDirectory, ids: Ids, clock: Clock, pauses: Pauses
) -> int:
    """Ask about payments without an answer whose next try is due; returns how many were.

    The next try is put off before the wire, so that a process that dies here leaves a payment due again later, and a
    second process asks about others. A word learned here is told to confirm at once.
    """
    async with store.transaction() as book:
        now = clock.now()
        due = await book.lock_due([Status.UNKNOWN], now=now, limit=PER_ROUND)
        await book.save([tried_again(one, now=now, pauses=pauses) for one in due])
    if not due:
        return 0
    words = await enquire_and_resend(due, rail=rail, agents=agents, ids=ids)
    at_once = Pauses(pauses.first_s, pauses.longest_s, repeat_answer_after_s=0.0)
    await store_words(words, store=store, now=clock.now(), pauses=at_once)
    return len(due)


class Delivery:
    """One round of telling confirm: how many heard it, and whose answer confirm refused to believe."""

    def __init__(self) -> None:
        self.delivered = 0
        self.refused: list[tuple[UUID, str]] = []


async def deliver_answers(*, store: Store, confirm: Confirm, clock: Clock, pauses: Pauses) -> Delivery:
    """Tell confirm the bank's words that it may not have heard, until it has heard each of them.

    A caller of submit that got the word itself has `repeat_answer_after_s` to act on it; being told again does no
    harm. An answer that confirm refuses for good is in `refused`: somebody has to look at that payment.
    """
    async with store.transaction() as book:
        now = clock.now()
        due = await book.lock_due([Status.ACCEPTED, Status.REJECTED], now=now, limit=PER_ROUND)
        await book.save([tried_again(one, now=now, pauses=pauses) for one in due])
    delivery = Delivery()
    if not due:
        return delivery
    answers = await confirm.record_bank_answer([_answer_of(one) for one in due])
    heard: list[UUID] = []
    for instruction, answer in zip(due, answers, strict=True):
        if not isinstance(answer, PayflowError):
            heard.append(instruction.payment_id)
        elif isinstance(answer, (Rejection, Conflict)) and not isinstance(answer, _PASSING):
            heard.append(instruction.payment_id)
            delivery.refused.append((instruction.payment_id, answer.code))
    async with store.transaction() as book:
        known = await book.lock(heard)
        await book.save([with_answer_delivered(one, now=clock.now()) for one in known.values()])
    delivery.delivered = len(heard)
    return delivery


def _answer_of(instruction: Instruction) -> RecordBankAnswer:
    return RecordBankAnswer(
        payment_id=instruction.payment_id,
        is_accepted=instruction.status is Status.ACCEPTED,
        reason_code=instruction.reason_code,
    )
