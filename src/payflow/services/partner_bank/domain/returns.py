"""A return: held money that goes back to the bank that sent it, offered anew only where the bank refused it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import NAMESPACE_OID, UUID, uuid5

from payflow.services.partner_bank.domain.instruction import LIFE, Instruction, Status
from payflow.services.partner_bank.domain.outgoing import DUPLICATE, BankWord, Word
from payflow.services.partner_bank.domain.tries import Pauses, tried_again

# Why held money goes back (ISO 20022 external return reasons) where the creditor's account did not refuse it.
REGULATORY_REASON: Final = "RR04"
# A refusal is mostly about what only people can change: meanwhile somebody talks with the bank.
OFFERED_ANEW_AFTER: Final = timedelta(hours=1)
OFFERED_ANEW_AFTER_MAX: Final = timedelta(days=1)
# A bank that says again and again that a return never came will not say otherwise within seconds.
NEVER_RECEIVED_PAUSE_MAX_S: Final = 3600.0


@dataclass(frozen=True, slots=True)
class EndRequest:
    """One operator's word that the bank took its money otherwise, which until `expires_at` waits for a second one's."""

    reference: str
    requested_by: str
    requested_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Return:
    """One pacs.004. `return_reason` is why the money goes back, `reason_code` why the bank refused it; end-to-end id,
    UETR and amount are those of the payment. `attempts` are the fencing tokens of its booking, and go on from the
    payment's. `proof` is the bank's reference, where `ended_by` has it that the bank took its money otherwise;
    `needs_approval`: that takes two people, and `request` is the first one's word. `never_received`: how often the bank
    has said that it never came, and `last_answer` with which reason last."""

    return_id: UUID
    payment_id: UUID
    number: int
    message_id: str
    agent_bic: str
    end_to_end_id: str
    uetr: str | None
    amount_minor: int
    currency: str
    return_reason: str
    attempts: int
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None
    status: Status = Status.UNKNOWN
    reason_code: str | None = None
    sent_at: datetime | None = None
    answered_at: datetime | None = None
    booked_at: datetime | None = None
    proof: str | None = None
    ended_by: str | None = None
    needs_approval: bool = False
    request: EndRequest | None = None
    never_received: int = 0
    last_answer: str | None = None
    last_answer_at: datetime | None = None

    def waiting_request(self, now: datetime) -> EndRequest | None:
        """The first operator's word, while it waits for a second one's: until then nothing is sent."""
        return self.request if self.request is not None and now < self.request.expires_at else None


def return_id_of(payment_id: UUID, number: int) -> UUID:
    """The identity of a payment's first, second, ... return."""
    return uuid5(NAMESPACE_OID, f"payflow:return:{payment_id}:{number}")


def first_return(incoming: Instruction, *, reason: str, message_id: str, now: datetime) -> Return:
    """The return of a payment that is held and may not be credited."""
    return Return(
        return_id=return_id_of(incoming.payment_id, 1),
        payment_id=incoming.payment_id,
        number=1,
        message_id=message_id,
        agent_bic=incoming.agent_bic,
        end_to_end_id=incoming.end_to_end_id,
        uetr=incoming.uetr,
        amount_minor=incoming.amount_minor,
        currency=incoming.currency,
        return_reason=reason,
        attempts=incoming.attempts,
        created_at=now,
        updated_at=now,
        next_attempt_at=now,
    )


def offered_anew(refused: Return, *, message_id: str, now: datetime) -> Return:
    """The return after one that the bank refused for good, under new ids, for the refused ones have their answer.

    It rests before it is sent: an hour, and twice as long after each refusal, up to a day; and while an operator's word
    waits that the bank has its money otherwise, which is about the new one then.
    """
    number = refused.number + 1
    rest = min(OFFERED_ANEW_AFTER * 2 ** min(refused.number - 1, 10), OFFERED_ANEW_AFTER_MAX)
    waiting = refused.waiting_request(now)
    return replace(
        refused,
        return_id=return_id_of(refused.payment_id, number),
        number=number,
        message_id=message_id,
        status=Status.UNKNOWN,
        reason_code=None,
        created_at=now,
        updated_at=now,
        sent_at=None,
        answered_at=None,
        next_attempt_at=now + rest if waiting is None else max(now + rest, waiting.expires_at),
        needs_approval=waiting is not None,
        request=waiting,
        never_received=0,
        last_answer=None,
        last_answer_at=None,
    )


def put_on_the_wire(made: Return, *, now: datetime, pauses: Pauses) -> Return:
    """The return as it is from when it is about to be sent, or asked about: never asked about before it was sent.

    An operator's word that nobody has confirmed has expired by then.
    """
    waiting = made.waiting_request(now)
    tried = tried_again(made, now=now, pauses=pauses)
    return replace(tried, sent_at=made.sent_at or now, request=waiting, needs_approval=waiting is not None)


def return_with_word(made: Return, answer: BankWord, *, now: datetime, pauses: Pauses) -> Return:
    """The return after the bank's answer; unchanged where it says nothing, or where a word was given.

    "Duplicate" refuses a second copy and says nothing of the first: nothing may be offered anew for it. One that never
    came, though it was sent, rests ever longer before it is asked about and sent again.
    """
    if LIFE.is_final(made.status) or answer.word is Word.UNKNOWN:
        return made
    if answer.word is Word.NOT_RECEIVED:
        return _never_received(made, answer.reason_code, now=now, pauses=pauses)
    if answer.word is Word.REJECTED and answer.reason_code in DUPLICATE:
        return made
    return replace(
        made,
        status=Status(answer.word.value),
        reason_code=answer.reason_code,
        answered_at=now,
        updated_at=now,
        next_attempt_at=now if answer.word is Word.ACCEPTED else None,
    )


def taken_otherwise(made: Return, *, proof: str, ended_by: str, now: datetime) -> Return:
    """The return whose money the bank has by other means; unchanged where the bank has given its word."""
    if LIFE.is_final(made.status):
        return made
    return replace(
        made,
        status=Status.ACCEPTED,
        answered_at=now,
        updated_at=now,
        next_attempt_at=now,
        proof=proof,
        ended_by=ended_by,
    )


def _never_received(made: Return, reason_code: str | None, *, now: datetime, pauses: Pauses) -> Return:
    """The return with its next try put off: from the longest usual pause on, twice as long each time, up to an hour."""
    longer = Pauses(first_s=pauses.longest_s, longest_s=max(pauses.longest_s, NEVER_RECEIVED_PAUSE_MAX_S))
    next_attempt_at = now + longer.after(made.never_received)
    waiting = made.waiting_request(now)
    return replace(
        made,
        never_received=made.never_received + 1,
        last_answer=reason_code,
        last_answer_at=now,
        updated_at=now,
        # It is sent again as soon as an operator's word, which keeps it back, has expired.
        next_attempt_at=next_attempt_at if waiting is None else min(next_attempt_at, waiting.expires_at),
    )


def asked_by_operator(made: Return, *, now: datetime, pauses: Pauses) -> Return:
    """The return that never came, as its bank told an operator, and was sent again: asked about soon, however long it
    would have rested."""
    soon = now + pauses.after(made.attempts)
    return replace(made, updated_at=now, next_attempt_at=min(soon, made.next_attempt_at or soon))


def booked(made: Return, *, now: datetime) -> Return:
    """The return whose money has left suspense: nothing is left to do."""
    return replace(made, booked_at=now, updated_at=now, next_attempt_at=None)
