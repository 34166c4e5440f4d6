"""The partner_bank service: credit transfers to and from other banks (pacs.008, pacs.002, pacs.028, pacs.004)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.contracts.sides import ListSides, SidesList
from payflow.kernel.errors import Conflict, Rejection


class BankStatus(StrEnum):
    """The other bank's word. UNKNOWN keeps the hold and starts a status enquiry; it is never guessed."""

    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"


class UnknownAgent(Rejection):
    """No route to a bank with this BIC."""

    code = "UNKNOWN_AGENT"


class InstructionNotFound(Rejection):
    """No instruction was stored for this payment."""

    code = "INSTRUCTION_NOT_FOUND"


class EndToEndIdTaken(Rejection):
    """Another payment to this bank carries the end-to-end id: the bank would take this one for its repeat."""

    code = "END_TO_END_ID_TAKEN"


class InvalidInstruction(Rejection):
    """A field does not fit into the message between the banks; nothing was sent."""

    code = "INVALID_INSTRUCTION"


class OtherReference(Conflict):
    """Another operator has named another reference, and their word waits for a second person's."""

    code = "OTHER_REFERENCE"


class SubmitCreditTransfer(msgspec.Struct, frozen=True, kw_only=True):
    """Send a credit transfer to another bank. One instruction per payment id: a repeat sends nothing under a new id."""

    payment_id: UUID
    fencing_token: int
    end_to_end_id: str
    amount_minor: int
    currency: str
    debtor_name: str
    debtor_account: str
    creditor_name: str | None
    creditor_account: str
    creditor_agent: str
    remittance_information: str | None = None


class SubmissionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`reason_code` is the ISO 20022 status reason of a rejection (AC01, AM04, ...)."""

    payment_id: UUID
    status: BankStatus
    reason_code: str | None
    answered_at: datetime | None


class Enquire(msgspec.Struct, frozen=True, kw_only=True):
    """Ask the other bank again (pacs.028, same ids) about a submitted payment, or about a return that was sent."""

    payment_id: UUID


class EndReturn(msgspec.Struct, frozen=True, kw_only=True):
    """The bank has taken a held payment's money back, though not by the return: `reference` is its proof of that.

    Above the limit the first one's word waits for the same of a second person.
    """

    payment_id: UUID
    reference: str
    ended_by: str


class WithdrawEnding(msgspec.Struct, frozen=True, kw_only=True):
    """Take back the first one's word, which waits for a second person's: the return goes on."""

    payment_id: UUID
    withdrawn_by: str


class ReturnEnding(msgspec.Struct, frozen=True, kw_only=True):
    """How a return stands after an operator's word, under its own id: UNKNOWN while it is not ended.

    Above the limit `requested_by` gave the first word, with `reference`; while it is UNKNOWN, that waits for a second
    person's until `expires_at`.
    """

    payment_id: UUID
    status: BankStatus
    reason_code: str | None
    answered_at: datetime | None
    reference: str | None = None
    requested_by: str | None = None
    expires_at: datetime | None = None


class InstructionView(msgspec.Struct, frozen=True, kw_only=True):
    """A stored instruction, outgoing or incoming, as operators see it.

    `next_attempt_at`: when it is gone on with. Of a return, `last_answer` is the reason with which its bank said last
    that it never came, and `end_requested_by` who has said that the bank has its money, which until `end_expires_at`
    waits for a second person.
    """

    payment_id: UUID
    direction: str
    end_to_end_id: str
    agent_bic: str
    amount_minor: int
    currency: str
    status: str
    reason_code: str | None
    created_at: datetime
    updated_at: datetime
    next_attempt_at: datetime | None = None
    last_answer: str | None = None
    last_answer_at: datetime | None = None
    end_requested_by: str | None = None
    end_reference: str | None = None
    end_expires_at: datetime | None = None


# As a direction to list: returns of held money, each under an id of its own.
RETURN: Final = "RETURN"


class ListInstructions(msgspec.Struct, frozen=True, kw_only=True):
    """One page, newest first. Without a direction: credit transfers, out and in; returns only where asked for."""

    direction: str | None = None
    status: str | None = None
    cursor: UUID | None = None
    limit: int = 50


class InstructionPage(msgspec.Struct, frozen=True, kw_only=True):
    instructions: list[InstructionView]
    next_cursor: UUID | None


class PartnerBank(Protocol):
    """Operations of the partner_bank service."""

    service: ClassVar[str] = "partner_bank"

    @operation(callers={"confirm"}, timeout_s=5, calls_in_flight=16, tells=("status", "reason_code"))
    async def submit(self, commands: list[SubmitCreditTransfer]) -> Answers[SubmissionStatus]: ...

    @operation(callers={"confirm", "gateway", "cli"}, timeout_s=5, calls_in_flight=16, tells=("status", "reason_code"))
    async def enquire(self, queries: list[Enquire]) -> Answers[SubmissionStatus]: ...

    @operation(callers={"gateway"}, tells=("status",))
    async def end_return(self, commands: list[EndReturn]) -> Answers[ReturnEnding]: ...

    @operation(callers={"gateway"}, tells=("status",))
    async def withdraw_ending(self, commands: list[WithdrawEnding]) -> Answers[ReturnEnding]: ...

    @operation(callers={"gateway", "cli"})
    async def list_instructions(self, queries: list[ListInstructions]) -> Answers[InstructionPage]: ...

    # Of payments that came in; what went out is confirm's. Few pages to a call, and not waited for long.
    @operation(callers={"gateway"}, timeout_s=2, batch_max=4)
    async def list_sides(self, queries: list[ListSides]) -> Answers[SidesList]: ...
