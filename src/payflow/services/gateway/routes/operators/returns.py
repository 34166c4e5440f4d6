"""Returns: operators give a completed payment's money back; above a limit a second person approves it first."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, QueryParameter

from payflow.contracts.gateway import Role
from payflow.contracts.returns import (
    DecideReturn,
    GetReturn,
    ListReturns,
    RequestReturn,
    ReturnReason,
    Returns,
    ReturnState,
    ReturnView,
)
from payflow.kernel.errors import error_from_parts
from payflow.kernel.money import format_minor
from payflow.platform.context import current_traceparent
from payflow.platform.http.strict_json import StrictReader
from payflow.services.gateway.domain.payments import return_fingerprint
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.operators.shared import Reason, as_text, open_to, read_id_cursor
from payflow.services.gateway.routes.payment_confirm import idempotency_key
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices

_BACK_OFFICE = open_to(Role.OPERATOR, Role.COMPLIANCE, Role.AUDITOR)
_DECIDES = open_to(Role.OPERATOR, Role.COMPLIANCE)
InState = Annotated[ReturnState | None, QueryParameter(name="state")]


class ReturnBody(Body):
    """`amount` is a decimal as text with at most the currency's decimals; without it all that is left goes back.

    `reason_code` is an ISO 20022 return reason: AC03 invalid creditor account, AC04 closed, AC06 blocked, AM05
    duplication, AM09 wrong amount, BE05 unrecognised initiating party, CUST requested by customer, FOCR following a
    cancellation request, FR01 fraud, MD06 refund request, MS02 and MS03 not specified, NARR see the note, RR04
    regulatory. The note is for colleagues; customers are not told it.
    """

    reason_code: ReturnReason
    amount: Annotated[str, msgspec.Meta(min_length=1, max_length=40, examples=["250.00"])] | None = None
    note: Reason | None = None


class Return(msgspec.Struct, kw_only=True):
    """A return. `return_id` is its own payment id, which statement lines show; `payment_id` is the original's.

    `from_account` pays the money back: it is the original's `to_account`. AWAITING_APPROVAL: above the limit, until
    `expires_at` it waits for somebody else than `requested_by`. APPROVED: it is being made. UNDER_REVIEW: a possible
    sanctions match, for compliance. COMPLETED: the money is back. REJECTED, DECLINED, EXPIRED: nothing has moved.
    """

    return_id: str
    payment_id: str
    state: ReturnState
    amount: str
    currency: str
    from_account: str
    to_account: str
    reason_code: ReturnReason
    note: str | None
    needs_approval: bool
    requested_by: str
    decided_by: str | None
    error: str | None
    detail: str | None
    requested_at: datetime
    updated_at: datetime
    completed_at: datetime | None
    expires_at: datetime | None


class ReturnList(msgspec.Struct):
    """Returns, newest first. `next_cursor` is null on the last page."""

    data: list[Return]
    next_cursor: str | None


_BODY: Final = StrictReader(ReturnBody, required=("reason_code",))
# What the ledger and the review can refuse a return with, once it was stored.
_REFUSED: Final = ("INSUFFICIENT_FUNDS", "ACCOUNT_CLOSED", "ACCOUNT_BLOCKED", "PAYMENT_REFUSED")


@post(
    "/operator/payments/{payment_id:uuid}/returns",
    guards=[open_to(Role.OPERATOR)],
    tags=["Returns"],
    summary="Return a payment",
    opt={
        "body": ReturnBody,
        "idempotency_key": "required",
        "errors": (
            "MISSING_IDEMPOTENCY_KEY",
            "INVALID_IDEMPOTENCY_KEY",
            "IDEMPOTENCY_KEY_REUSED",
            "PAYMENT_NOT_FOUND",
            "PAYMENT_IN_PROGRESS",
            "NOT_RETURNABLE",
            "RETURN_NOT_POSSIBLE",
            "RETURN_OWN_PAYMENT",
            "RETURN_EXCEEDS_PAYMENT",
            "INVALID_AMOUNT",
            *_REFUSED,
        ),
    },
)
async def request_return(request: AnyRequest, services: FromServices, payment_id: FromPath[UUID]) -> Return:
    """Give the money of a completed payment back, whole or in part, from its creditor's account to its debtor's.

    All returns of a payment together never come to more than it was. Up to the limit (`PAYFLOW_RETURN_FOUR_EYES_ABOVE`,
    what was returned of the payment before counts) it is made at once; above it waits for a second person. A repeat
    under the same key is told how the return stands. A payment that left for another bank is that bank's to return.
    """
    key = idempotency_key(dict(request.scope))
    body = await read_json(request, _BODY)
    officer = current_user(request.scope)
    command = RequestReturn(
        payment_id=payment_id,
        idempotency_key=key,
        fingerprint=return_fingerprint(
            payment_id=payment_id, amount=body.amount, reason_code=body.reason_code, note=body.note
        ),
        reason_code=body.reason_code,
        requested_by=officer.username,
        amount=body.amount,
        note=body.note,
        officer_customer_id=officer.customer_id,
        traceparent=current_traceparent.get(),
    )
    return _unless_refused(first(await services.client(Returns).request_return([command])))


@get(
    "/operator/payments/{payment_id:uuid}/returns",
    guards=[_BACK_OFFICE],
    tags=["Returns"],
    summary="List a payment's returns",
)
async def list_returns_of_payment(
    services: FromServices, payment_id: FromPath[UUID], cursor: Cursor = None, limit: Limit = 50
) -> ReturnList:
    """The returns of one payment, newest first; none for a payment that nobody knows."""
    return await _page(services, ListReturns(payment_id=payment_id, cursor=read_id_cursor(cursor), limit=limit))


@get("/returns", guards=[_BACK_OFFICE], tags=["Returns"], summary="List returns")
async def list_returns(
    services: FromServices, in_state: InState = None, cursor: Cursor = None, limit: Limit = 50
) -> ReturnList:
    """All returns, newest first; `state=AWAITING_APPROVAL` are those that wait for a second person."""
    return await _page(services, ListReturns(state=in_state, cursor=read_id_cursor(cursor), limit=limit))


@get(
    "/returns/{return_id:uuid}",
    guards=[_BACK_OFFICE],
    tags=["Returns"],
    summary="Look at a return",
    opt={"errors": ("RETURN_NOT_FOUND",)},
)
async def get_return(services: FromServices, return_id: FromPath[UUID]) -> Return:
    """One return by its `return_id`."""
    return _return(first(await services.client(Returns).get_returns([GetReturn(return_id=return_id)])))


_DECISION_ERRORS: Final = (
    "RETURN_NOT_FOUND",
    "RETURN_OWN_PAYMENT",
    "FOUR_EYES_REQUIRED",
    "RETURN_ALREADY_DECIDED",
    "PAYMENT_IN_PROGRESS",
)


@post(
    "/returns/{return_id:uuid}/approve",
    status_code=200,
    guards=[_DECIDES],
    tags=["Returns"],
    summary="Approve a return",
    opt={"errors": (*_DECISION_ERRORS, *_REFUSED)},
)
async def approve_return(request: AnyRequest, services: FromServices, return_id: FromPath[UUID]) -> Return:
    """As the second person: the return is made. Whoever asked for it is FOUR_EYES_REQUIRED; the same approval again
    answers the return.
    """
    return await _decide(request, services, return_id, is_approved=True)


@post(
    "/returns/{return_id:uuid}/decline",
    status_code=200,
    guards=[_DECIDES],
    tags=["Returns"],
    summary="Decline a return",
    opt={"errors": _DECISION_ERRORS},
)
async def decline_return(request: AnyRequest, services: FromServices, return_id: FromPath[UUID]) -> Return:
    """As the second person: nothing is returned, and its amount can be asked for again."""
    return await _decide(request, services, return_id, is_approved=False)


async def _decide(request: AnyRequest, services: FromServices, return_id: UUID, *, is_approved: bool) -> Return:
    officer = current_user(request.scope)
    command = DecideReturn(
        return_id=return_id,
        is_approved=is_approved,
        decided_by=officer.username,
        officer_customer_id=officer.customer_id,
    )
    return _unless_refused(first(await services.client(Returns).decide_return([command])))


async def _page(services: FromServices, query: ListReturns) -> ReturnList:
    page = first(await services.client(Returns).list_returns([query]))
    return ReturnList(data=[_return(view) for view in page.returns], next_cursor=as_text(page.next_cursor))


def _unless_refused(view: ReturnView) -> Return:
    """The return; raises the refusal of one that was refused, each time it is asked for."""
    if view.state is ReturnState.REJECTED:
        raise error_from_parts(
            family="rejection",
            code=view.error_code or "PAYMENT_REFUSED",
            detail=view.error_detail or "",
            extra={"return_id": str(view.return_id)},
        )
    return _return(view)


def _return(view: ReturnView) -> Return:
    return Return(
        return_id=str(view.return_id),
        payment_id=str(view.payment_id),
        state=view.state,
        amount=format_minor(view.amount_minor, view.currency),
        currency=view.currency,
        from_account=view.debtor_account,
        to_account=view.creditor_account,
        reason_code=view.reason_code,
        note=view.note,
        needs_approval=view.needs_approval,
        requested_by=view.requested_by,
        decided_by=view.decided_by,
        error=view.error_code,
        detail=view.error_detail,
        requested_at=view.requested_at,
        updated_at=view.updated_at,
        completed_at=view.completed_at,
        expires_at=view.expires_at,
    )


HANDLERS = [
    request_return,
    list_returns_of_payment,
    list_returns,
    get_return,
    approve_return,
    decline_return,
]
