"""Bulk orders as their customer is told of them: progress, results line by line, and their cancellation."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import get, post
from litestar.params import FromPath, QueryParameter

from payflow.contracts.bulk import (
    Bulk,
    BulkItem,
    BulkState,
    BulkView,
    CancelBulk,
    GetBulk,
    ItemStatus,
    ListBulkItems,
    ListBulks,
)
from payflow.contracts.problems import problem_for
from payflow.services.gateway.routes.answers import Payment, payment_body
from payflow.services.gateway.routes.bodies import AnyRequest, first
from payflow.services.gateway.routes.payments import Cursor, Limit, read_payment_cursor
from payflow.services.gateway.routes.security import FOR_CUSTOMERS, current_user, customer_of
from payflow.services.gateway.routes.services import FromServices
from payflow.services.gateway.routes.streams import BulkStream

BULK_PATH: Final = "/payments/bulk"
_encode: Final = msgspec.json.Encoder().encode


class BulkOrder(msgspec.Struct, kw_only=True):
    """A file of payments. `total`: how many it has so far; `counts`: how many of each status, those that are none left
    out; `next_line`: the line that an upload which was cut goes on with.

    `expires_at`: until then the file must be whole, and after that until then its payments must have been begun.
    """

    bulk_id: UUID
    status: BulkState
    total: int
    next_line: int
    counts: dict[str, int]
    created_at: datetime
    updated_at: datetime
    accepted_at: datetime | None
    ended_at: datetime | None
    expires_at: datetime | None


class BulkOrderList(msgspec.Struct):
    """Bulk orders, newest first. `next_cursor` is null on the last page."""

    data: list[BulkOrder]
    next_cursor: str | None


class BulkItemResult(msgspec.Struct, kw_only=True):
    """What became of a line. `error` and `detail` tell why it was refused; `payment` is there once it is one;
    `transaction_id` is null where the line has none that can be read.

    OTP_REQUIRED: complete it by `POST /payment/confirm` with the line's fields, `idempotency_key` and `otp`.
    """

    line: int
    status: ItemStatus
    transaction_id: str | None
    idempotency_key: str
    error: str | None
    detail: str | None
    payment: Payment | None


class BulkItemList(msgspec.Struct):
    """Results in file order. `next_cursor` is null on the last page; a page that looks for one status may be short."""

    data: list[BulkItemResult]
    next_cursor: str | None


def order_body(view: BulkView) -> BulkOrder:
    """A bulk order as it is told."""
    return BulkOrder(
        bulk_id=view.bulk_id,
        status=view.state,
        total=view.total,
        next_line=view.next_line,
        counts={status.value: count for status, count in view.counts.items()},
        created_at=view.received_at,
        updated_at=view.updated_at,
        accepted_at=view.accepted_at,
        ended_at=view.ended_at,
        expires_at=view.expires_at,
    )


def encode_order(view: BulkView) -> bytes:
    """The same as JSON."""
    return _encode(order_body(view))


def item_body(item: BulkItem) -> BulkItemResult:
    """A line's result as it is told."""
    payment = None if item.payment is None else payment_body(item.payment)
    error = item.error_code if payment is None else payment.error
    detail = item.error_detail if payment is None else payment.detail
    return BulkItemResult(
        line=item.line,
        status=item.status,
        transaction_id=item.transaction_id,
        idempotency_key=item.idempotency_key,
        error=error,
        detail=detail if error is None or detail else problem_for(error).detail,
        payment=payment,
    )


@get(BULK_PATH, tags=["Payments"], summary="List own bulk orders", opt=FOR_CUSTOMERS)
async def list_bulks(
    request: AnyRequest,
    services: FromServices,
    cursor: Cursor = None,
    limit: Limit = 50,
    with_status: Annotated[BulkState | None, QueryParameter(name="status")] = None,
) -> BulkOrderList:
    """The signed-in customer's files of payments, newest first; RECEIVING: those whose upload was not finished."""
    query = ListBulks(
        customer_id=customer_of(request.scope), cursor=read_payment_cursor(cursor), limit=limit, state=with_status
    )
    page = first(await services.client(Bulk).list_bulks([query]))
    next_cursor = None if page.next_cursor is None else str(page.next_cursor)
    return BulkOrderList(data=[order_body(view) for view in page.bulks], next_cursor=next_cursor)


@get(
    "/payments/bulk/{bulk_id:uuid}",
    tags=["Payments"],
    summary="Look at a bulk order",
    opt={**FOR_CUSTOMERS, "errors": ("BULK_NOT_FOUND",)},
)
async def get_bulk(request: AnyRequest, services: FromServices, bulk_id: FromPath[UUID]) -> BulkOrder:
    """How far a file of the signed-in customer's is: how many of its lines have each status."""
    query = GetBulk(bulk_id=bulk_id, customer_id=customer_of(request.scope))
    return order_body(first(await services.client(Bulk).get_bulk([query])))


@get(
    "/payments/bulk/{bulk_id:uuid}/items",
    tags=["Payments"],
    summary="The results of a bulk order",
    opt={**FOR_CUSTOMERS, "errors": ("BULK_NOT_FOUND",)},
)
async def list_bulk_items(
    request: AnyRequest,
    services: FromServices,
    bulk_id: FromPath[UUID],
    cursor: Annotated[int, QueryParameter(ge=0, le=1_000_000_000, description="Lines after this one.")] = 0,
    limit: Annotated[int, QueryParameter(ge=1, le=1000, description="How many at most.")] = 50,
    with_status: Annotated[ItemStatus | None, QueryParameter(name="status")] = None,
) -> BulkItemList:
    """What became of each line, in file order. `next_cursor` leads on, also where a page has fewer than `limit`."""
    query = ListBulkItems(
        bulk_id=bulk_id, customer_id=customer_of(request.scope), cursor=cursor, limit=limit, status=with_status
    )
    page = first(await services.client(Bulk).list_bulk_items([query]))
    next_cursor = None if page.next_cursor is None else str(page.next_cursor)
    return BulkItemList(data=[item_body(item) for item in page.items], next_cursor=next_cursor)


@get(
    "/payments/bulk/{bulk_id:uuid}/events",
    tags=["Payments"],
    summary="Watch a bulk order",
    opt={**FOR_CUSTOMERS, "stream": "text/event-stream", "errors": ("BULK_NOT_FOUND",)},
)
async def bulk_events(request: AnyRequest, services: FromServices, bulk_id: FromPath[UUID]) -> BulkStream:
    """Server-sent events: the order as `GET /payments/bulk/{bulk_id}` tells it, at once and each time that it has
    changed, named by its status; ends when the order has ended."""
    query = GetBulk(bulk_id=bulk_id, customer_id=customer_of(request.scope))
    bulk = services.client(Bulk)
    return BulkStream(
        query=query,
        view=first(await bulk.get_bulk([query])),
        told_as=order_body,
        user=current_user(request.scope),
        bulk=bulk,
        gate=services.gate,
        places=services.streams,
    )


@post(
    "/payments/bulk/{bulk_id:uuid}/cancel",
    status_code=200,
    tags=["Payments"],
    summary="Cancel a bulk order",
    opt={**FOR_CUSTOMERS, "errors": ("BULK_NOT_FOUND", "BULK_ENDED")},
)
async def cancel_bulk(request: AnyRequest, services: FromServices, bulk_id: FromPath[UUID]) -> BulkOrder:
    """Begin nothing more of a file. Lines that were begun are finished; payments that wait are cancelled singly."""
    command = CancelBulk(bulk_id=bulk_id, customer_id=customer_of(request.scope))
    return order_body(first(await services.client(Bulk).cancel_bulk([command])))


HANDLERS = [list_bulks, get_bulk, list_bulk_items, bulk_events, cancel_bulk]
