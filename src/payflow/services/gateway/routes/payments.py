"""A customer's own payments."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, HeaderParameter, QueryParameter

from payflow.contracts.confirm import CancelPayment, GetPayment, ListPayments, PaymentState
from payflow.platform.http.errors import UnreadableBody
from payflow.services.gateway.routes.answers import Payment, payment_body
from payflow.services.gateway.routes.bodies import AnyRequest, first
from payflow.services.gateway.routes.security import FOR_CUSTOMERS, current_user, customer_of, freshness_name
from payflow.services.gateway.routes.services import FromServices
from payflow.services.gateway.routes.streams import PaymentStream

Limit = Annotated[int, QueryParameter(ge=1, le=200, description="How many at most.")]
Cursor = Annotated[str | None, QueryParameter(max_length=64, description="`next_cursor` of the page before.")]


class PaymentList(msgspec.Struct):
    """Payments, newest first. `next_cursor` is null on the last page."""

    data: list[Payment]
    next_cursor: str | None


@get("/payments", tags=["Payments"], summary="List own payments", opt=FOR_CUSTOMERS)
async def list_payments(
    request: AnyRequest,
    services: FromServices,
    cursor: Cursor = None,
    limit: Limit = 50,
    in_state: Annotated[PaymentState | None, QueryParameter(name="state")] = None,
) -> PaymentList:
    """The signed-in customer's payments, newest first."""
    query = ListPayments(
        customer_id=customer_of(request.scope),
        cursor=read_payment_cursor(cursor),
        limit=limit,
        state=in_state,
        fresh_as_of=await services.freshness.fresh_as_of(freshness_name(request.scope)),
    )
    page = first(await services.confirm.list_payments([query]))
    next_cursor = None if page.next_cursor is None else str(page.next_cursor)
    return PaymentList(data=[payment_body(payment) for payment in page.payments], next_cursor=next_cursor)


@get(
    "/payments/{transaction_id:str}",
    tags=["Payments"],
    summary="Look at a payment",
    opt={**FOR_CUSTOMERS, "errors": ("PAYMENT_NOT_FOUND",)},
)
async def get_payment(request: AnyRequest, services: FromServices, transaction_id: FromPath[str]) -> Payment:
    """One payment of the signed-in customer's; 404 for anybody else's."""
    query = GetPayment(transaction_id=transaction_id, customer_id=customer_of(request.scope))
    return payment_body(first(await services.confirm.get([query])))


@post(
    "/payments/{transaction_id:str}/cancel",
    status_code=200,
    tags=["Payments"],
    summary="Cancel a payment",
    opt={**FOR_CUSTOMERS, "errors": ("PAYMENT_NOT_FOUND", "NOT_CANCELLABLE", "PAYMENT_IN_PROGRESS")},
)
async def cancel_payment(request: AnyRequest, services: FromServices, transaction_id: FromPath[str]) -> Payment:
    """Cancel a payment that waits for a one-time password, a review, its day, or its way to the other bank."""
    command = CancelPayment(transaction_id=transaction_id, customer_id=customer_of(request.scope))
    return payment_body(first(await services.confirm.cancel([command])))


@get(
    "/payments/{transaction_id:str}/events",
    tags=["Payments"],
    summary="Watch a payment",
    opt={**FOR_CUSTOMERS, "stream": "text/event-stream", "errors": ("PAYMENT_NOT_FOUND",)},
)
async def payment_events(
    request: AnyRequest,
    services: FromServices,
    transaction_id: FromPath[str],
    last_event_id: Annotated[str | None, HeaderParameter(name="Last-Event-ID", max_length=20)] = None,
) -> PaymentStream:
    """Server-sent events: each step of the payment so far, then each as it is taken; ends with the end state.

    `Last-Event-ID` leaves out what was heard before.
    """
    query = GetPayment(transaction_id=transaction_id, customer_id=customer_of(request.scope))
    after = int(last_event_id) if last_event_id is not None and last_event_id.isdecimal() else 0
    return PaymentStream(
        query=query,
        history=first(await services.confirm.history([query])),
        after=after,
        user=current_user(request.scope),
        confirm=services.confirm,
        gate=services.gate,
        places=services.streams,
    )


def read_payment_cursor(cursor: str | None) -> UUID | None:
    """A cursor of payment lists. Raises UnreadableBody for what no list gave."""
    try:
        return None if cursor is None else UUID(cursor)
    except ValueError:
        raise UnreadableBody("cursor: send next_cursor of the page before as it is.", field="cursor") from None


HANDLERS = [list_payments, get_payment, cancel_payment, payment_events]
