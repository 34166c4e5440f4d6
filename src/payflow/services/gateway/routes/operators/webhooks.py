"""Webhooks: where payments' events are sent to, and how that went."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
from litestar import delete, get, patch, post
from litestar.params import FromPath, QueryParameter

from payflow.contracts.account import GetCustomer
from payflow.contracts.gateway import Role
from payflow.contracts.notification import (
    ChangeWebhook,
    DeleteWebhook,
    GetWebhook,
    ListWebhookDeliveries,
    ListWebhooks,
    RedeliverWebhook,
    RegisterWebhook,
    RotateWebhookSecret,
    SendWebhookTest,
    WebhookDeliveryState,
    WebhookDeliveryView,
    Webhooks,
    WebhookState,
    WebhookView,
    WebhookWithSecret,
)
from payflow.platform.http.strict_json import StrictReader
from payflow.platform.ids import UuidV7
from payflow.services.gateway.routes.bodies import AnyRequest, Body, first, read_json
from payflow.services.gateway.routes.documented import Answer
from payflow.services.gateway.routes.operators.shared import END, NewId, as_text, open_to, read_id_cursor
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.security import current_user
from payflow.services.gateway.routes.services import FromServices

_ids: Final = UuidV7()
_READERS: Final = open_to(Role.OPERATOR, Role.AUDITOR)
_WRITERS: Final = open_to(Role.OPERATOR)

Url = Annotated[str, msgspec.Meta(min_length=1, max_length=2048, examples=["https://example.org/payflow"])]
EventTypes = Annotated[
    list[Annotated[str, msgspec.Meta(min_length=1, max_length=64, examples=["payment.completed"])]],
    msgspec.Meta(min_length=1, max_length=50),
]
Description = Annotated[str, msgspec.Meta(max_length=500, pattern=r"^[^\x00-\x1f\x7f]*" + END)]


class DisabledReason(StrEnum):
    """OPERATOR: somebody disabled it. GONE: it answered 410. FAILING: five days went by without a success."""

    OPERATOR = "OPERATOR"
    GONE = "GONE"
    FAILING = "FAILING"


class NewWebhookBody(Body):
    """A webhook to register. `event_types`: `payment.*` and `incoming.*` events by name, or `*` for all of them, also
    those that are added later. `customer_id`: only events about that customer.
    """

    url: Url
    event_types: EventTypes
    description: Description = ""
    customer_id: NewId | None = None


class WebhookChangeBody(Body):
    """What to change; what is left out stays as it is."""

    url: Url | None = None
    event_types: EventTypes | None = None
    description: Description | None = None
    state: WebhookState | None = None


class Webhook(msgspec.Struct, kw_only=True):
    """Where events are sent to. `failing_since` is null unless the last call failed."""

    webhook_id: str
    url: str
    event_types: list[str]
    description: str
    customer_id: str | None
    state: WebhookState
    disabled_reason: DisabledReason | None
    failing_since: datetime | None
    created_by: str
    created_at: datetime
    updated_at: datetime


class WebhookSecret(Webhook, kw_only=True):
    """A webhook with its signing secret, which is never told again. Secrets before it sign too until
    `previous_valid_until`."""

    secret: str
    previous_valid_until: datetime | None


class WebhookList(msgspec.Struct):
    """Webhooks, newest first. `next_cursor` is null on the last page."""

    data: list[Webhook]
    next_cursor: str | None


class WebhookDelivery(msgspec.Struct, kw_only=True):
    """One event on its way to one webhook. `event_id` is the header `webhook-id` of every attempt; `subject` is what
    the event is about, a payment's id. `status_code` and `error` are the last attempt's.
    """

    delivery_id: str
    event_id: str
    event_type: str
    subject: str
    state: WebhookDeliveryState
    attempts: int
    status_code: int | None
    error: str | None
    next_attempt_at: datetime | None
    last_attempt_at: datetime | None
    delivered_at: datetime | None
    created_at: datetime


class WebhookDeliveryList(msgspec.Struct):
    """Deliveries, newest first. `next_cursor` is null on the last page."""

    data: list[WebhookDelivery]
    next_cursor: str | None


_NEW: Final = StrictReader(NewWebhookBody, required=("url", "event_types"))
_CHANGE: Final = StrictReader(WebhookChangeBody, required=())


@post(
    "/webhooks",
    guards=[_WRITERS],
    tags=["Webhooks"],
    summary="Register a webhook",
    opt={"body": NewWebhookBody, "errors": ("CUSTOMER_NOT_FOUND", "INVALID_WEBHOOK", "TOO_MANY_WEBHOOKS")},
)
async def register_webhook(request: AnyRequest, services: FromServices) -> WebhookSecret:
    """Events from now on are sent to `url` as a POST that is signed as Standard Webhooks says. The secret is told here
    and never again. Only https addresses on the public internet are called in production, unless the installation
    allows others.

    An event may come more than once and in any order: `webhook-id` tells a repeat, `data.version` the newer of two.
    """
    body = await read_json(request, _NEW)
    if body.customer_id is not None:
        first(await services.account.get_customers([GetCustomer(customer_id=body.customer_id)]))
    command = RegisterWebhook(
        webhook_id=_ids.new(),
        url=body.url,
        event_types=body.event_types,
        description=body.description,
        customer_id=body.customer_id,
        registered_by=current_user(request.scope).username,
    )
    return _with_secret(first(await services.client(Webhooks).register_webhooks([command])))


@get("/webhooks", guards=[_READERS], tags=["Webhooks"], summary="List webhooks")
async def list_webhooks(services: FromServices, cursor: Cursor = None, limit: Limit = 50) -> WebhookList:
    """All webhooks, newest first, without their secrets."""
    query = ListWebhooks(cursor=read_id_cursor(cursor), limit=limit)
    page = first(await services.client(Webhooks).list_webhooks([query]))
    return WebhookList(data=[_webhook(view) for view in page.webhooks], next_cursor=as_text(page.next_cursor))


@get(
    "/webhooks/{webhook_id:uuid}",
    guards=[_READERS],
    tags=["Webhooks"],
    summary="Look at a webhook",
    opt={"errors": ("WEBHOOK_NOT_FOUND",)},
)
async def get_webhook(services: FromServices, webhook_id: FromPath[UUID]) -> Webhook:
    """One webhook, without its secret."""
    return _webhook(first(await services.client(Webhooks).get_webhooks([GetWebhook(webhook_id=webhook_id)])))


@patch(
    "/webhooks/{webhook_id:uuid}",
    guards=[_WRITERS],
    tags=["Webhooks"],
    summary="Change a webhook",
    opt={"body": WebhookChangeBody, "errors": ("WEBHOOK_NOT_FOUND", "INVALID_WEBHOOK")},
)
async def change_webhook(request: AnyRequest, services: FromServices, webhook_id: FromPath[UUID]) -> Webhook:
    """Nothing is sent while the state is DISABLED, and events of that time are not sent later; deliveries that were
    waiting go on when it is ENABLED again."""
    body = await read_json(request, _CHANGE)
    command = ChangeWebhook(
        webhook_id=webhook_id,
        url=body.url,
        event_types=body.event_types,
        description=body.description,
        state=body.state,
        changed_by=current_user(request.scope).username,
    )
    return _webhook(first(await services.client(Webhooks).change_webhooks([command])))


@delete(
    "/webhooks/{webhook_id:uuid}",
    guards=[_WRITERS],
    tags=["Webhooks"],
    summary="Delete a webhook",
    opt={"answers": {204: Answer(None, description="It is gone.")}, "errors": ("WEBHOOK_NOT_FOUND",)},
)
async def delete_webhook(request: AnyRequest, services: FromServices, webhook_id: FromPath[UUID]) -> None:
    """Its secrets and deliveries are forgotten with it."""
    command = DeleteWebhook(webhook_id=webhook_id, deleted_by=current_user(request.scope).username)
    first(await services.client(Webhooks).delete_webhooks([command]))


@post(
    "/webhooks/{webhook_id:uuid}/rotate-secret",
    status_code=200,
    guards=[_WRITERS],
    tags=["Webhooks"],
    summary="Give a webhook a new secret",
    opt={"errors": ("WEBHOOK_NOT_FOUND",)},
)
async def rotate_webhook_secret(
    request: AnyRequest, services: FromServices, webhook_id: FromPath[UUID]
) -> WebhookSecret:
    """The secret before it signs for 24 hours more, beside the new one, so that the receiver can change without missing
    anything. Calling it again makes one more secret; the five newest sign."""
    command = RotateWebhookSecret(webhook_id=webhook_id, rotated_by=current_user(request.scope).username)
    return _with_secret(first(await services.client(Webhooks).rotate_webhook_secrets([command])))


@post(
    "/webhooks/{webhook_id:uuid}/test",
    status_code=202,
    guards=[_WRITERS],
    tags=["Webhooks"],
    summary="Send a test",
    opt={"errors": ("WEBHOOK_NOT_FOUND", "WEBHOOK_DISABLED")},
)
async def send_webhook_test(request: AnyRequest, services: FromServices, webhook_id: FromPath[UUID]) -> WebhookDelivery:
    """Have an event `webhook.test` sent, whatever the webhook's event types are. Its deliveries tell how it went."""
    asked_by = current_user(request.scope).username
    command = SendWebhookTest(webhook_id=webhook_id, event_id=_ids.new(), asked_by=asked_by)
    return _delivery(first(await services.client(Webhooks).send_webhook_tests([command])))


@get(
    "/webhooks/{webhook_id:uuid}/deliveries",
    guards=[_READERS],
    tags=["Webhooks"],
    summary="List a webhook's deliveries",
    opt={"errors": ("WEBHOOK_NOT_FOUND",)},
)
async def list_webhook_deliveries(
    services: FromServices,
    webhook_id: FromPath[UUID],
    in_state: Annotated[WebhookDeliveryState | None, QueryParameter(name="state")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> WebhookDeliveryList:
    """How sending went, newest event first. Deliveries are forgotten after 30 days, or as the installation says."""
    query = ListWebhookDeliveries(webhook_id=webhook_id, state=in_state, cursor=read_id_cursor(cursor), limit=limit)
    page = first(await services.client(Webhooks).list_webhook_deliveries([query]))
    return WebhookDeliveryList(
        data=[_delivery(view) for view in page.deliveries], next_cursor=as_text(page.next_cursor)
    )


@post(
    "/webhooks/{webhook_id:uuid}/deliveries/{delivery_id:uuid}/redeliver",
    status_code=202,
    guards=[_WRITERS],
    tags=["Webhooks"],
    summary="Send an event again",
    opt={"errors": ("WEBHOOK_NOT_FOUND", "WEBHOOK_DELIVERY_NOT_FOUND", "WEBHOOK_DISABLED")},
)
async def redeliver_webhook(
    services: FromServices, webhook_id: FromPath[UUID], delivery_id: FromPath[UUID]
) -> WebhookDelivery:
    """Send it now, with the same `webhook-id` and with all tries before it, whatever became of it. While an attempt is
    under way this changes nothing."""
    command = RedeliverWebhook(webhook_id=webhook_id, delivery_id=delivery_id)
    return _delivery(first(await services.client(Webhooks).redeliver_webhooks([command])))


def _webhook(view: WebhookView) -> Webhook:
    return Webhook(**_fields(view))


def _with_secret(answer: WebhookWithSecret) -> WebhookSecret:
    return WebhookSecret(
        **_fields(answer.webhook), secret=answer.secret, previous_valid_until=answer.previous_valid_until
    )


def _fields(view: WebhookView) -> dict[str, Any]:
    reason = view.disabled_reason
    return {
        **msgspec.structs.asdict(view),
        "webhook_id": str(view.webhook_id),
        "disabled_reason": None if reason is None else DisabledReason(reason),
    }


def _delivery(view: WebhookDeliveryView) -> WebhookDelivery:
    return WebhookDelivery(
        **{
            **msgspec.structs.asdict(view),
            "delivery_id": str(view.delivery_id),
            "event_id": str(view.event_id),
        }
    )


HANDLERS = [
    register_webhook,
    list_webhooks,
    get_webhook,
    change_webhook,
    delete_webhook,
    rotate_webhook_secret,
    send_webhook_test,
    list_webhook_deliveries,
    redeliver_webhook,
]
