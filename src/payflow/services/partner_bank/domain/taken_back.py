"""An operator's word that a bank has taken held money back by other means: above the limit two of them give it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from payflow.contracts.partner_bank import BankStatus, OtherReference, ReturnEnding
from payflow.kernel.errors import PayflowError
from payflow.kernel.four_eyes import FourEyes
from payflow.services.partner_bank.domain.instruction import LIFE
from payflow.services.partner_bank.domain.returns import EndRequest, Return, taken_otherwise


@dataclass(frozen=True, slots=True)
class TakenBackRules:
    """Above which amount a second person is asked, and for how long the first one's word waits for it."""

    four_eyes: FourEyes
    approval: timedelta


def with_operators_word(
    made: Return, *, reference: str, said_by: str, rules: TakenBackRules, now: datetime
) -> Return | PayflowError:
    """The return after an operator's word: ended, or, above the limit, waiting for a second person's.

    Unchanged where the bank has given its word or it was ended, and where the same person says the same again. While
    the word waits nothing is sent, for the bank may have its money; what was sent before is asked about as ever.
    OtherReference for a word that contradicts the first one.
    """
    if LIFE.is_final(made.status):
        return made
    if not rules.four_eyes.asks(made.amount_minor, made.currency):
        return taken_otherwise(without_request(made), proof=reference, ended_by=said_by, now=now)
    first = made.waiting_request(now)
    if first is None:
        expires_at = now + rules.approval
        asked = EndRequest(reference=reference, requested_by=said_by, requested_at=now, expires_at=expires_at)
        next_attempt_at = expires_at if made.sent_at is None else made.next_attempt_at
        return replace(made, request=asked, needs_approval=True, next_attempt_at=next_attempt_at, updated_at=now)
    if first.reference != reference:
        return OtherReference(
            f"{first.requested_by} has named another reference, which waits until {first.expires_at:%Y-%m-%dT%H:%MZ}: "
            "confirm that one, or withdraw it first."
        )
    if first.requested_by.casefold() == said_by.casefold():
        return made
    return taken_otherwise(made, proof=reference, ended_by=said_by, now=now)


def withdrawn(made: Return, *, now: datetime) -> Return:
    """The return whose first word was taken back: it goes on at once. Unchanged where none waits."""
    if LIFE.is_final(made.status) or made.waiting_request(now) is None:
        return made
    return replace(without_request(made), next_attempt_at=now, updated_at=now)


def without_request(made: Return) -> Return:
    """The return as if nobody had said anything of it."""
    return replace(made, request=None, needs_approval=False)


def ending_of(made: Return, *, now: datetime) -> ReturnEnding:
    """The return as operators who end it see it: a request is told where it waits, or where it was confirmed."""
    told = made.request if made.ended_by is not None else made.waiting_request(now)
    return ReturnEnding(
        payment_id=made.return_id,
        status=BankStatus(made.status.value),
        reason_code=made.reason_code,
        answered_at=made.answered_at,
        reference=None if told is None else told.reference,
        requested_by=None if told is None else told.requested_by,
        expires_at=None if told is None else told.expires_at,
    )
