"""What the other bank's word about a payment of ours means, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from payflow.contracts.partner_bank import (
    BankStatus,
    InvalidInstruction,
    SubmissionStatus,
    SubmitCreditTransfer,
    UnknownAgent,
)
from payflow.kernel.errors import PayflowError, Rejection
from payflow.kernel.money import InvalidAmount, UnknownCurrency, decimals_of
from payflow.services.partner_bank.domain.instruction import (
    ACCOUNT_LENGTH_MAX,
    ID_LENGTH_MAX,
    Direction,
    Instruction,
    Parties,
    Status,
    account_number,
    plain_text,
    uetr_of,
)
from payflow.services.partner_bank.domain.tries import Pauses

# ISO 20022 external status reasons.
UNKNOWN_CREDITOR_AGENT: Final = "RC04"
ORIGINAL_NEVER_RECEIVED: Final = frozenset({"AG09", "NOOR"})
DUPLICATE: Final = frozenset({"AM05", "DUPL", "DU01", "DU03", "DU04", "DU05"})


class Word(StrEnum):
    """What a bank's answer says about one payment. NOT_RECEIVED: the bank never got it, so it can be sent again."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"
    NOT_RECEIVED = "NOT_RECEIVED"


@dataclass(frozen=True, slots=True)
class BankWord:
    """One payment's answer, with the ISO status reason where the bank gave one."""

    word: Word
    reason_code: str | None = None


SILENCE: Final = BankWord(Word.UNKNOWN)

_ACCEPTED: Final = frozenset({"ACSC", "ACCC", "ACWP"})


def refuse_submission(command: SubmitCreditTransfer) -> Rejection | None:
    """Why this can never be told to another bank, or None. Names and references are cut, ids and accounts are not."""
    if command.amount_minor <= 0:
        return InvalidAmount("The amount must be greater than zero.")
    try:
        decimals_of(command.currency)
    except UnknownCurrency as error:
        return error
    identifier = command.end_to_end_id
    if not identifier or len(identifier) > ID_LENGTH_MAX or not (identifier.isascii() and identifier.isprintable()):
        return InvalidInstruction(f"An end-to-end id has 1 to {ID_LENGTH_MAX} printable ASCII characters.")
    for number in (account_number(command.debtor_account), account_number(command.creditor_account)):
        if plain_text(number, length_max=ACCOUNT_LENGTH_MAX) != number:
            return InvalidInstruction(f"An account number has 1 to {ACCOUNT_LENGTH_MAX} characters.")
    if plain_text(command.debtor_name) is None:
        return InvalidInstruction("The debtor has no name.")
    return None


def outgoing_instruction(
    command: SubmitCreditTransfer, *, agent_bic: str | None, message_id: str, now: datetime, enquire_at: datetime
) -> Instruction:
    """The instruction that a command asks for. Without an agent it is refused at once, and stays so."""
    return Instruction(
        payment_id=command.payment_id,
        direction=Direction.OUTGOING,
        agent_bic=agent_bic or command.creditor_agent,
        end_to_end_id=command.end_to_end_id,
        message_id=message_id if agent_bic else None,
        instruction_id=command.payment_id.hex,
        uetr=uetr_of(command.payment_id),
        amount_minor=command.amount_minor,
        currency=command.currency,
        parties=Parties(
            debtor_name=plain_text(command.debtor_name),
            debtor_account=account_number(command.debtor_account),
            creditor_name=plain_text(command.creditor_name),
            creditor_account=account_number(command.creditor_account),
            remittance_information=plain_text(command.remittance_information),
        ),
        fencing_token=command.fencing_token,
        status=Status.UNKNOWN if agent_bic else Status.REJECTED,
        reason_code=None if agent_bic else UNKNOWN_CREDITOR_AGENT,
        created_at=now,
        updated_at=now,
        next_attempt_at=enquire_at if agent_bic else None,
        is_answer_delivered=agent_bic is None,
    )


def word_of(*, status: str | None, reason_code: str | None, is_enquiry: bool) -> BankWord:
    """What a pacs.002 transaction status says: the sender of a payment may believe only a final word.

    "Duplicate" in answer to a payment tells nothing of the first copy, and "never received" is no word about a payment
    that is just being sent: both are unknown, and the enquiry brings the truth.
    """
    if status in _ACCEPTED:
        return BankWord(Word.ACCEPTED)
    if status != "RJCT":
        return SILENCE
    if reason_code in ORIGINAL_NEVER_RECEIVED:
        return BankWord(Word.NOT_RECEIVED, reason_code) if is_enquiry else SILENCE
    if reason_code in DUPLICATE and not is_enquiry:
        return SILENCE
    return BankWord(Word.REJECTED, reason_code)


def with_word(instruction: Instruction, answer: BankWord, *, now: datetime, pauses: Pauses) -> Instruction:
    """The instruction after the bank's answer; unchanged where it says nothing final, or where a word was given."""
    if instruction.is_final or answer.word not in (Word.ACCEPTED, Word.REJECTED):
        return instruction
    return replace(
        instruction,
        status=Status(answer.word.value),
        reason_code=answer.reason_code,
        answered_at=now,
        updated_at=now,
        attempts=0,
        next_attempt_at=now + timedelta(seconds=pauses.repeat_answer_after_s),
    )


def with_answer_delivered(instruction: Instruction, *, now: datetime) -> Instruction:
    """The instruction after confirm has heard the bank's word: nothing is left to do."""
    return replace(instruction, is_answer_delivered=True, next_attempt_at=None, updated_at=now)


def submission_status(instruction: Instruction) -> SubmissionStatus | PayflowError:
    """An outgoing instruction as its callers see it."""
    if instruction.message_id is None:
        return UnknownAgent(f"There is no route to the bank {instruction.agent_bic}.")
    return SubmissionStatus(
        payment_id=instruction.payment_id,
        status=BankStatus(instruction.status.value),
        reason_code=instruction.reason_code,
        answered_at=instruction.answered_at,
    )
