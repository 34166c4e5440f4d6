"""Instructions to and from other banks: looked at, and asked about again."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, FromQuery

from payflow.contracts.gateway import Role
from payflow.contracts.partner_bank import BankStatus, Enquire, InstructionView, ListInstructions, PartnerBank
from payflow.kernel.money import format_minor
from payflow.services.gateway.routes.bodies import first
from payflow.services.gateway.routes.operators.shared import as_text, open_to, read_id_cursor
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.services import FromServices


class Direction(StrEnum):
    OUTGOING = "OUTGOING"
    INCOMING = "INCOMING"


class InstructionStatus(StrEnum):
    """Outgoing ones are UNKNOWN until the other bank has ACCEPTED or REJECTED; incoming ones PENDING until CREDITED,
    HELD_IN_SUSPENSE or REJECTED.
    """

    UNKNOWN = "UNKNOWN"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    PENDING = "PENDING"
    CREDITED = "CREDITED"
    HELD_IN_SUSPENSE = "HELD_IN_SUSPENSE"


class Instruction(msgspec.Struct, kw_only=True):
    """A credit transfer to or from another bank. `reason_code` is the ISO 20022 reason of a rejection."""

    payment_id: str
    direction: Direction
    end_to_end_id: str
    agent_bic: str
    amount: str
    currency: str
    status: InstructionStatus
    reason_code: str | None
    created_at: datetime
    updated_at: datetime


class InstructionList(msgspec.Struct):
    """Instructions, newest first. `next_cursor` is null on the last page."""

    data: list[Instruction]
    next_cursor: str | None


class EnquiryAnswer(msgspec.Struct, kw_only=True):
    """The other bank's word. UNKNOWN: it has not given one yet; it is asked again without being told to."""

    payment_id: str
    status: BankStatus
    reason_code: str | None
    answered_at: datetime | None


@get(
    "/partner-bank/instructions",
    guards=[open_to(Role.OPERATOR)],
    tags=["Banks"],
    summary="List instructions",
)
async def list_instructions(
    services: FromServices,
    direction: FromQuery[Direction | None] = None,
    status: FromQuery[InstructionStatus | None] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> InstructionList:
    """Credit transfers to and from other banks, newest first."""
    query = ListInstructions(direction=direction, status=status, cursor=read_id_cursor(cursor), limit=limit)
    page = first(await services.client(PartnerBank).list_instructions([query]))
    return InstructionList(
        data=[_instruction(view) for view in page.instructions], next_cursor=as_text(page.next_cursor)
    )


@post(
    "/partner-bank/instructions/{payment_id:uuid}/enquiry",
    status_code=200,
    guards=[open_to(Role.OPERATOR)],
    tags=["Banks"],
    summary="Ask the other bank again",
    opt={"errors": ("INSTRUCTION_NOT_FOUND",)},
)
async def enquire(services: FromServices, payment_id: FromPath[UUID]) -> EnquiryAnswer:
    """Send a status enquiry (pacs.028) with the same ids. Nothing is ever sent a second time, so asking is safe."""
    answer = first(await services.client(PartnerBank).enquire([Enquire(payment_id=payment_id)]))
    return EnquiryAnswer(
        payment_id=str(answer.payment_id),
        status=answer.status,
        reason_code=answer.reason_code,
        answered_at=answer.answered_at,
    )


def _instruction(view: InstructionView) -> Instruction:
    return Instruction(
        payment_id=str(view.payment_id),
        direction=Direction(view.direction),
        end_to_end_id=view.end_to_end_id,
        agent_bic=view.agent_bic,
        amount=format_minor(view.amount_minor, view.currency),
        currency=view.currency,
        status=InstructionStatus(view.status),
        reason_code=view.reason_code,
        created_at=view.created_at,
        updated_at=view.updated_at,
    )


HANDLERS = [list_instructions, enquire]
