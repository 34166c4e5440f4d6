"""What becomes of money that comes in, and what the other bank is told of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from payflow.contracts.sides import PaymentSides, Side
from payflow.kernel.money import InvalidAmount, Money, UnknownCurrency
from payflow.services.partner_bank.domain.instruction import (
    LIFE,
    Direction,
    Instruction,
    Parties,
    Status,
    incoming_payment_id,
    plain_text,
    same_bank,
)


@dataclass(frozen=True, slots=True)
class IncomingTransfer:
    """One transaction of another bank's pacs.008, as received: amount and currency are still text."""

    end_to_end_id: str
    instruction_id: str | None
    uetr: str | None
    amount: str
    currency: str
    creditor_agent_bic: str | None
    parties: Parties


@dataclass(frozen=True, slots=True)
class Verdict:
    """Our word about one incoming transaction. `status` is the ISO transaction status."""

    status: str
    reason_code: str | None = None


@dataclass(frozen=True, slots=True)
class Care:
    """Why an incoming payment is never stuck: how long it may rest, who sees to it, what happens by itself.

    What rests longer is listed by `payflow stuck`, and somebody is told (alerts on its age).
    """

    deadline: timedelta
    owner: str
    next_step: str


CARE: Final = {
    Status.PENDING: Care(timedelta(minutes=5), "partner_bank", "screened and booked again, by any process"),
    Status.HELD_IN_SUSPENSE: Care(
        timedelta(days=1), "compliance", "asked how its review stands; credited or returned once it is decided"
    ),
    Status.RETURNING: Care(
        timedelta(hours=1), "partner_bank", "its bank is asked; one that refuses is offered the money anew, hours later"
    ),
}

# What ISO 20022 has senders write where the debtor gave no id.
NO_END_TO_END_ID: Final = "NOTPROVIDED"

PENDING_VERDICT: Final = Verdict("PDNG")
NEVER_RECEIVED_VERDICT: Final = Verdict("RJCT", "AG09")
DUPLICATE_VERDICT: Final = Verdict("RJCT", "AM05")

_VERDICTS: Final = {
    Status.PENDING: "PDNG",
    Status.CREDITED: "ACSC",
    Status.HELD_IN_SUSPENSE: "ACWP",
    # It was taken, whatever became of it then: that it goes back is told by a message of its own.
    Status.RETURNING: "ACWP",
    Status.RETURNED: "ACWP",
    Status.REJECTED: "RJCT",
}


def verdict_of(instruction: Instruction) -> Verdict:
    """An incoming instruction as the other bank is told of it; a final word never becomes another one."""
    reason_code = instruction.reason_code if instruction.status is Status.REJECTED else None
    return Verdict(_VERDICTS[instruction.status], reason_code)


def refuse_incoming(transfer: IncomingTransfer, *, own_bic: str) -> str | None:
    """The ISO reason for which this is refused whoever the creditor is, or None.

    Both names are needed: money is not taken from or for somebody who cannot be screened. And an end-to-end id is
    needed, since it tells a repeat from a second payment.
    """
    if transfer.end_to_end_id == NO_END_TO_END_ID:
        return "DU04"
    if not same_bank(transfer.creditor_agent_bic, own_bic):
        return "RC04"
    if plain_text(transfer.parties.debtor_name) is None:
        return "BE08"
    if plain_text(transfer.parties.creditor_name) is None:
        return "BE22"
    return None


def incoming_amount(transfer: IncomingTransfer) -> Money | str:
    """The amount, exact to the currency's decimals, or the ISO reason for which it cannot be read."""
    try:
        return Money.from_decimal(transfer.amount, transfer.currency)
    except UnknownCurrency:
        return "AM11"
    except InvalidAmount:
        return "AM12"


def incoming_instruction(
    transfer: IncomingTransfer,
    *,
    amount: Money,
    agent_bic: str,
    message_id: str,
    reason_code: str | None,
    now: datetime,
) -> Instruction:
    """The record of an incoming transaction; with a reason it is refused from the start."""
    return Instruction(
        payment_id=incoming_payment_id(agent_bic=agent_bic, end_to_end_id=transfer.end_to_end_id),
        direction=Direction.INCOMING,
        agent_bic=agent_bic,
        end_to_end_id=transfer.end_to_end_id,
        message_id=message_id,
        instruction_id=transfer.instruction_id,
        uetr=transfer.uetr,
        amount_minor=amount.minor_units,
        currency=amount.currency,
        parties=transfer.parties,
        fencing_token=0,
        status=Status.REJECTED if reason_code else Status.PENDING,
        reason_code=reason_code,
        created_at=now,
        updated_at=now,
        answered_at=now if reason_code else None,
        next_attempt_at=None if reason_code else now,
    )


def incoming_sides(*, booked_as: UUID, agent_bic: str, end_to_end_id: str, parties: Parties) -> PaymentSides:
    """Both sides of money that came in: the debtor's are as its bank has told them, who is no customer here."""
    return PaymentSides(
        payment_id=booked_as,
        debtor=Side(account=plain_text(parties.debtor_account), name=parties.debtor_name, agent=agent_bic),
        creditor=Side(account=parties.creditor_account, name=parties.creditor_name),
        remittance_information=parties.remittance_information,
        transaction_id=end_to_end_id,
    )


def is_same_transfer(known: Instruction, received: Instruction) -> bool:
    """Whether a repeat under a known end-to-end id is the payment that we know."""
    if known.uetr and received.uetr and known.uetr != received.uetr:
        return False
    return (known.amount_minor, known.currency, known.parties.creditor_account) == (
        received.amount_minor,
        received.currency,
        received.parties.creditor_account,
    )


def settled(instruction: Instruction, *, status: Status, reason_code: str | None, now: datetime) -> Instruction:
    """The incoming instruction in its next status. Raises IllegalTransition for one that has ended.

    Money in suspense is looked after at once: its review may have been decided already.
    """
    LIFE.check(instruction.status, status)
    return replace(
        instruction,
        status=status,
        reason_code=reason_code,
        answered_at=instruction.answered_at or now,
        updated_at=now,
        next_attempt_at=now if status is Status.HELD_IN_SUSPENSE else None,
    )
