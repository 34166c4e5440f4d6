"""The partner_bank service: credit transfers to and from other banks (pacs.008, pacs.002, pacs.028, pacs.004)."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Protocol
from uuid import UUID

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Rejection


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
    """Ask the other bank again (pacs.028, same ids) about a submitted payment."""

    payment_id: UUID


class InstructionView(msgspec.Struct, frozen=True, kw_only=True):
    """A stored instruction, outgoing or incoming, as operators see it."""

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


class ListInstructions(msgspec.Struct, frozen=True, kw_only=True):
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

    @operation(callers={"gateway", "cli"})
    async def list_instructions(self, queries: list[ListInstructions]) -> Answers[InstructionPage]: ...
