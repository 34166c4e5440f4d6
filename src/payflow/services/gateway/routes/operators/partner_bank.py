"""Instructions to and from other banks: looked at, asked about again, and ended where a bank has its money already."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post
from litestar.params import FromPath, FromQuery

from payflow.contracts.gateway import Role
from payflow.contracts.partner_bank import (
    BankStatus,
    EndReturn,
    Enquire,
    InstructionView,
    ListInstructions,
    PartnerBank,
    ReturnEnding,
    SubmissionStatus,
    WithdrawEnding,
)
from payflow.kernel.money import format_minor
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.documented import Answer
from payflow.services.gateway.routes.operators.shared import Reason, as_text, open_to, read_id_cursor
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices


class Direction(StrEnum):
    """A RETURN takes incoming money, which was held in suspense, back to the bank that sent it."""

    OUTGOING = "OUTGOING"
    INCOMING = "INCOMING"
    RETURN = "RETURN"


class InstructionStatus(StrEnum):
    """Outgoing ones are UNKNOWN until the other bank has ACCEPTED or REJECTED; incoming ones PENDING until CREDITED,
    HELD_IN_SUSPENSE or REJECTED. What is held becomes CREDITED when its review is cleared, or else RETURNING until one
    of its returns was ACCEPTED, and then RETURNED.
    """

    UNKNOWN = "UNKNOWN"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"
    PENDING = "PENDING"
    CREDITED = "CREDITED"
    HELD_IN_SUSPENSE = "HELD_IN_SUSPENSE"
    RETURNING = "RETURNING"
    RETURNED = "RETURNED"


class TakenBackRequest(msgspec.Struct, kw_only=True):
    """One operator's word that the bank has its money, which waits for a second one's until `expires_at`."""

    requested_by: str
    reference: str
    expires_at: datetime


class Instruction(msgspec.Struct, kw_only=True):
    """A credit transfer to or from another bank. `reason_code` is the ISO 20022 reason of a rejection or return.

    `next_attempt_at`: when it is gone on with by itself. Of a return, `last_answer` is the reason with which its bank
    said last that it never came (AG09, NOOR), and `taken_back` an operator's word that waits for a second person.
    """

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
    next_attempt_at: datetime | None
    last_answer: str | None
    last_answer_at: datetime | None
    taken_back: TakenBackRequest | None


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


class TakenBackState(StrEnum):
    """RETURNING: no word waits, and the return is offered to the bank. AWAITING_APPROVAL: one person has given their
    word, and nothing is booked nor sent until a second one gives the same, or until `expires_at`. ENDED: the bank has
    its money, or has said what becomes of the return."""

    RETURNING = "RETURNING"
    AWAITING_APPROVAL = "AWAITING_APPROVAL"
    ENDED = "ENDED"


class TakenBack(msgspec.Struct, kw_only=True):
    """How a return stands, under its own id. Above the limit `requested_by` gave the first word, with `reference`."""

    payment_id: str
    state: TakenBackState
    status: BankStatus
    reason_code: str | None
    answered_at: datetime | None
    reference: str | None
    requested_by: str | None
    expires_at: datetime | None


class TakenBackBody(Body):
    """`reference`: by what the bank shows that it has the money, as its booking's id. It is kept with the return."""

    reference: Reason


_TAKEN_BACK: Final = StrictReader(TakenBackBody, required=("reference",))


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
    """Credit transfers to and from other banks, newest first; with `direction=RETURN` returns of held money, each under
    an id of its own."""
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
    """Send a status enquiry (pacs.028) with the same ids, about a payment or a return that was sent. Asking is safe."""
    return _answer(first(await services.client(PartnerBank).enquire([Enquire(payment_id=payment_id)])))


@post(
    "/partner-bank/instructions/{payment_id:uuid}/taken-back",
    status_code=200,
    guards=[open_to(Role.OPERATOR)],
    tags=["Banks"],
    summary="Say that a bank has taken back held money otherwise",
    opt={
        "body": TakenBackBody,
        "errors": ("INSTRUCTION_NOT_FOUND", "OTHER_REFERENCE"),
        "answers": {
            200: Answer(TakenBack, description="It has ended."),
            202: Answer(TakenBack, description="Above the limit: it waits for a second person, and nothing is booked."),
        },
    },
)
async def take_back(request: AnyRequest, services: FromServices, payment_id: FromPath[UUID]) -> Response[TakenBack]:
    """The bank has the money of an incoming payment that is RETURNING, though it has not accepted the return. Nothing
    more is sent, and the money is booked back to the bank. One that was sent may have arrived: have the bank's word
    first that it books that no more. The answer is about the return, under its own id.

    Above the limit (`PAYFLOW_TAKEN_BACK_FOUR_EYES_ABOVE`) two people say so: the first one's word waits (202), nothing
    is booked nor sent meanwhile, and a second one sends the same reference. The same person again changes nothing,
    another reference is OTHER_REFERENCE. A word that nobody confirms expires, and the return goes on.
    """
    body = await read_json(request, _TAKEN_BACK)
    command = EndReturn(payment_id=payment_id, reference=body.reference, ended_by=current_user(request.scope).username)
    answer = _taken_back(first(await services.client(PartnerBank).end_return([command])))
    return Response(answer, status_code=202 if answer.state is TakenBackState.AWAITING_APPROVAL else 200)


@delete(
    "/partner-bank/instructions/{payment_id:uuid}/taken-back",
    status_code=200,
    guards=[open_to(Role.OPERATOR)],
    tags=["Banks"],
    summary="Withdraw the word that a bank has taken back held money",
    opt={"errors": ("INSTRUCTION_NOT_FOUND",)},
)
async def withdraw_taken_back(request: AnyRequest, services: FromServices, payment_id: FromPath[UUID]) -> TakenBack:
    """As whoever gave the first word, or as the second person who does not confirm it: the return is offered to the
    bank again, at once. Where no word waits nothing changes.
    """
    command = WithdrawEnding(payment_id=payment_id, withdrawn_by=current_user(request.scope).username)
    return _taken_back(first(await services.client(PartnerBank).withdraw_ending([command])))


def _taken_back(answer: ReturnEnding) -> TakenBack:
    if answer.status is not BankStatus.UNKNOWN:
        state = TakenBackState.ENDED
    else:
        state = TakenBackState.RETURNING if answer.requested_by is None else TakenBackState.AWAITING_APPROVAL
    return TakenBack(
        payment_id=str(answer.payment_id),
        state=state,
        status=answer.status,
        reason_code=answer.reason_code,
        answered_at=answer.answered_at,
        reference=answer.reference,
        requested_by=answer.requested_by,
        expires_at=answer.expires_at,
    )


def _answer(answer: SubmissionStatus) -> EnquiryAnswer:
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
        next_attempt_at=view.next_attempt_at,
        last_answer=view.last_answer,
        last_answer_at=view.last_answer_at,
        taken_back=_request_that_waits(view),
    )


def _request_that_waits(view: InstructionView) -> TakenBackRequest | None:
    if view.status != InstructionStatus.UNKNOWN or view.end_expires_at is None:
        return None
    return TakenBackRequest(
        requested_by=view.end_requested_by or "", reference=view.end_reference or "", expires_at=view.end_expires_at
    )


HANDLERS = [list_instructions, enquire, take_back, withdraw_taken_back]
