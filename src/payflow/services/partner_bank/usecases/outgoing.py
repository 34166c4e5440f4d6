"""Payments to other banks: stored before the wire, sent under ids that never change, and asked about until answered."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

from payflow.contracts.account import StaleCommand
from payflow.contracts.agents import AgentDirectory
from payflow.contracts.operation import Answers
from payflow.contracts.partner_bank import (
    EndToEndIdTaken,
    InstructionNotFound,
    SubmissionStatus,
    SubmitCreditTransfer,
)
from payflow.kernel.clock import Clock, Ids
from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.services.partner_bank.domain import (
    SILENCE,
    BankWord,
    Direction,
    Instruction,
    Pauses,
    Word,
    in_chunks,
    message_id_of,
    outgoing_instruction,
    refuse_submission,
    submission_status,
    with_word,
)
from payflow.services.partner_bank.ports import InstructionTransaction, Rail, Store

# A message of so many transactions stays well below the 1 MB that banks take.
TRANSACTIONS_PER_MESSAGE: Final = 250

Opened: TypeAlias = "tuple[Instruction, bool]"


async def open_submissions(
    *,
    commands: Sequence[SubmitCreditTransfer],
    store: Store,
    agents: AgentDirectory,
    ids: Ids,
    now: datetime,
    enquire_after_s: float,
) -> Answers[Opened]:
    """Store the instructions of a batch before anything is sent; each answer is (instruction, whether it is new).

    Items may be InvalidAmount, UnknownCurrency, InvalidInstruction, EndToEndIdTaken, StaleCommand. Raises Unavailable
    (nothing was stored) or UnknownOutcome. The highest fencing token of each payment is kept.
    """
    refusals = [refuse_submission(command) for command in commands]
    valid = [command for command, refusal in zip(commands, refusals, strict=True) if refusal is None]
    wanted = _instructions(valid, agents=agents, ids=ids, now=now, enquire_at=now + timedelta(seconds=enquire_after_s))
    async with store.transaction() as book:
        inserted = await book.insert(list(wanted.values()))
        known = await book.lock([payment_id for payment_id in wanted if payment_id not in inserted])
        answers: Answers[Opened] = []
        for command, refusal in zip(commands, refusals, strict=True):
            answers.append(refusal or _open(command, wanted=wanted, inserted=inserted, known=known))
        await _keep_tokens(book, answers)
    return answers


def _instructions(
    commands: Sequence[SubmitCreditTransfer], *, agents: AgentDirectory, ids: Ids, now: datetime, enquire_at: datetime
) -> dict[UUID, Instruction]:
    """The instructions of the commands, each with the id of the message in which it will travel."""
    per_agent: dict[str, int] = {}
    message_ids: dict[str, str] = {}
    wanted: dict[UUID, Instruction] = {}
    for command in commands:
        if command.payment_id in wanted:
            continue
        agent = agents.by_bic(command.creditor_agent)
        bic = agent.bic if agent else ""
        if per_agent.setdefault(bic, 0) % TRANSACTIONS_PER_MESSAGE == 0:
            message_ids[bic] = message_id_of(ids.new())
        per_agent[bic] += 1
        wanted[command.payment_id] = outgoing_instruction(
            command,
            agent_bic=agent.bic if agent else None,
            message_id=message_ids[bic],
            now=now,
            enquire_at=enquire_at,
        )
    return wanted


def _open(
    command: SubmitCreditTransfer,
    *,
    wanted: Mapping[UUID, Instruction],
    inserted: set[UUID],
    known: dict[UUID, Instruction],
) -> Opened | PayflowError:
    payment_id = command.payment_id
    if payment_id in inserted:
        inserted.discard(payment_id)
        known[payment_id] = wanted[payment_id]
        return wanted[payment_id], True
    instruction = known.get(payment_id)
    if instruction is None or instruction.direction is not Direction.OUTGOING:
        return EndToEndIdTaken()
    if command.fencing_token < instruction.fencing_token:
        return StaleCommand()
    known[payment_id] = replace(instruction, fencing_token=command.fencing_token)
    return known[payment_id], False


async def _keep_tokens(book: InstructionTransaction, answers: Answers[Opened]) -> None:
    repeats = {
        answer[0].payment_id: answer[0] for answer in answers if not isinstance(answer, PayflowError) and not answer[1]
    }
    await book.save(list(repeats.values()))


async def send_opened(
    *,
    opened: Answers[Opened],
    store: Store,
    rail: Rail,
    agents: AgentDirectory,
    ids: Ids,
    clock: Clock,
    pauses: Pauses,
) -> Answers[SubmissionStatus]:
    """Send what is new and enquire about what was sent before without an answer; then store and tell the words.

    Items may be UnknownAgent. Once something was sent no failure of ours is told as "nothing happened": a word that
    could not be stored is told as UNKNOWN, and the enquiry learns it again.
    """
    present = [answer for answer in opened if not isinstance(answer, PayflowError)]
    new = [instruction for instruction, is_new in present if is_new and not instruction.is_final]
    fresh = {instruction.payment_id for instruction in new}
    repeats = {
        instruction.payment_id: instruction
        for instruction, is_new in present
        if not is_new and not instruction.is_final and instruction.payment_id not in fresh
    }
    sent, asked = await asyncio.gather(
        send_messages(new, rail=rail, agents=agents),
        enquire_and_resend(list(repeats.values()), rail=rail, agents=agents, ids=ids),
    )
    after = await _store_if_possible({**sent, **asked}, store=store, now=clock.now(), pauses=pauses)

    def answer_of(answer: Opened | PayflowError) -> SubmissionStatus | PayflowError:
        if isinstance(answer, PayflowError):
            return answer
        return submission_status(after.get(answer[0].payment_id, answer[0]))

    return [answer_of(answer) for answer in opened]


async def enquire(
    *,
    payment_ids: Sequence[UUID],
    store: Store,
    rail: Rail,
    agents: AgentDirectory,
    ids: Ids,
    clock: Clock,
    pauses: Pauses,
) -> Answers[SubmissionStatus]:
    """What the other banks say of payments: the stored word, or else the answer to a question asked now.

    Items may be InstructionNotFound, UnknownAgent.
    """
    known = await store.find(payment_ids)
    outgoing = {id: one for id, one in known.items() if one.direction is Direction.OUTGOING}
    open_ones = [instruction for instruction in outgoing.values() if not instruction.is_final]
    words = await enquire_and_resend(open_ones, rail=rail, agents=agents, ids=ids)
    outgoing.update(await _store_if_possible(words, store=store, now=clock.now(), pauses=pauses))
    return [
        submission_status(outgoing[payment_id]) if payment_id in outgoing else InstructionNotFound()
        for payment_id in payment_ids
    ]


async def send_messages(
    instructions: Sequence[Instruction], *, rail: Rail, agents: AgentDirectory
) -> dict[UUID, BankWord]:
    """Send credit transfers, one message for each message id that they carry, all at once."""
    by_message: dict[tuple[str, str | None], list[Instruction]] = {}
    for instruction in instructions:
        by_message.setdefault((instruction.agent_bic, instruction.message_id), []).append(instruction)

    async def send(agent_bic: str, batch: list[Instruction]) -> Mapping[UUID, BankWord]:
        agent = agents.by_bic(agent_bic)
        return {} if agent is None else await rail.send(agent=agent, instructions=batch)

    words = await asyncio.gather(*(send(agent_bic, batch) for (agent_bic, _), batch in by_message.items()))
    return _words_for(instructions, words)


async def enquire_and_resend(
    instructions: Sequence[Instruction], *, rail: Rail, agents: AgentDirectory, ids: Ids
) -> dict[UUID, BankWord]:
    """Ask the banks about payments; what a bank says it never received is sent again under the same ids.

    Each bank knows its repeats by end-to-end id, so a first copy that is still on its way does no harm.
    """
    by_agent: dict[str, list[Instruction]] = {}
    for instruction in instructions:
        by_agent.setdefault(instruction.agent_bic, []).append(instruction)

    async def ask(agent_bic: str, batch: list[Instruction]) -> Mapping[UUID, BankWord]:
        agent = agents.by_bic(agent_bic)
        if agent is None:
            return {}
        return await rail.enquire(agent=agent, instructions=batch, message_id=message_id_of(ids.new()))

    answers = await asyncio.gather(
        *(
            ask(agent_bic, chunk)
            for agent_bic, batch in by_agent.items()
            for chunk in in_chunks(batch, TRANSACTIONS_PER_MESSAGE)
        )
    )
    words = _words_for(instructions, answers)
    missing = [one for one in instructions if words[one.payment_id].word is Word.NOT_RECEIVED]
    return {**words, **await send_messages(missing, rail=rail, agents=agents)}


def _words_for(instructions: Sequence[Instruction], answers: Sequence[Mapping[UUID, BankWord]]) -> dict[UUID, BankWord]:
    said = {payment_id: word for answer in answers for payment_id, word in answer.items()}
    return {instruction.payment_id: said.get(instruction.payment_id, SILENCE) for instruction in instructions}


async def store_words(
    words: Mapping[UUID, BankWord], *, store: Store, now: datetime, pauses: Pauses
) -> dict[UUID, Instruction]:
    """Store final words, the first one of each payment for good; returns those instructions as they then are."""
    final = {id: word for id, word in words.items() if word.word in (Word.ACCEPTED, Word.REJECTED)}
    if not final:
        return {}
    async with store.transaction() as book:
        known = await book.lock(list(final))
        after = {id: with_word(known[id], word, now=now, pauses=pauses) for id, word in final.items()}
        await book.save([one for id, one in after.items() if one is not known[id]])
    return after


async def _store_if_possible(
    words: Mapping[UUID, BankWord], *, store: Store, now: datetime, pauses: Pauses
) -> dict[UUID, Instruction]:
    """As store_words; nothing where the store fails, since what was sent cannot be told as "nothing happened"."""
    try:
        return await store_words(words, store=store, now=now, pauses=pauses)
    except (Unavailable, UnknownOutcome):
        return {}
