"""What operators do with webhooks: register, look at, change, rotate, delete, send again, test.

Every change of a webhook is told as `security.webhook_*`, so that the audit trail knows who sent events where.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar
from urllib.parse import urlsplit
from uuid import UUID

import msgspec

from payflow.contracts.notification import (
    TEST_EVENT,
    ChangeWebhook,
    DeleteWebhook,
    GetWebhook,
    InvalidWebhook,
    ListWebhookDeliveries,
    ListWebhooks,
    RedeliverWebhook,
    RegisterWebhook,
    RotateWebhookSecret,
    SendWebhookTest,
    TooManyWebhooks,
    WebhookDeleted,
    WebhookDeliveryNotFound,
    WebhookDeliveryPage,
    WebhookDeliveryView,
    WebhookDisabled,
    WebhookNotFound,
    WebhookPage,
    WebhookState,
    WebhookView,
    WebhookWithSecret,
)
from payflow.contracts.operation import Answers
from payflow.contracts.topics import SecurityEvent
from payflow.kernel.clock import Ids
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.services.notification.domain import webhooks as domain
from payflow.services.notification.domain.addresses import AddressPolicy
from payflow.services.notification.domain.webhooks import Delivery, Webhook
from payflow.services.notification.ports import WebhookSecrets, WebhookStore

SOURCE = "notification"
LIMIT_MAX = 200
V = TypeVar("V", WebhookView, WebhookDeliveryView)


async def register(
    *,
    commands: Sequence[RegisterWebhook],
    store: WebhookStore,
    policy: AddressPolicy,
    secrets: WebhookSecrets,
    ids: Ids,
    now: datetime,
) -> Answers[WebhookWithSecret]:
    """Register webhooks, each with a secret of its own: one answer per command, in order.

    Safe to repeat: a webhook id is registered once, and a repeat is answered with the same secret.
    Items may be InvalidWebhook, TooManyWebhooks.
    """
    refused: dict[UUID, PayflowError] = {}
    async with store.transaction() as changes:
        count = await changes.count()
        known = await changes.lock(sorted({command.webhook_id for command in commands}))
        for command in commands:
            if command.webhook_id in known:
                continue
            flaw = _flaw(command.url, command.event_types, policy)
            if flaw is not None:
                refused[command.webhook_id] = flaw
            elif count >= domain.WEBHOOKS_MAX:
                refused[command.webhook_id] = TooManyWebhooks(f"There are {count} webhooks, as many as there may be.")
            else:
                webhook = _new(command, secrets.new(), now)
                known[command.webhook_id] = webhook
                count += 1
                await changes.add([webhook])
                await changes.append_events([event_of(webhook, "registered", command.registered_by, ids, now)])

    def answer(webhook_id: UUID) -> WebhookWithSecret | PayflowError:
        webhook = known.get(webhook_id)
        return refused[webhook_id] if webhook is None else _with_secret(webhook, now)

    return [answer(command.webhook_id) for command in commands]


def _flaw(url: str | None, event_types: Sequence[str] | None, policy: AddressPolicy) -> InvalidWebhook | None:
    flaw = None if url is None else policy.flaw_of_url(url)
    if flaw is None and event_types is not None:
        flaw = domain.flaw_of_types(event_types)
    return None if flaw is None else InvalidWebhook(flaw, field=flaw.partition(":")[0])


def _new(command: RegisterWebhook, secret: str, now: datetime) -> Webhook:
    return Webhook(
        webhook_id=command.webhook_id,
        url=command.url,
        event_types=tuple(dict.fromkeys(command.event_types)),
        description=command.description,
        customer_id=command.customer_id,
        state=WebhookState.ENABLED,
        disabled_reason=None,
        secrets=(domain.Secret(secret),),
        failing_since=None,
        version=1,
        created_by=command.registered_by,
        created_at=now,
        updated_at=now,
    )


def _with_secret(webhook: Webhook, now: datetime) -> WebhookWithSecret:
    newest, *old = domain.live_secrets(webhook.secrets, now=now)
    ends = [one.valid_until for one in old if one.valid_until is not None]
    return WebhookWithSecret(
        webhook=domain.view_of(webhook), secret=newest.text, previous_valid_until=max(ends, default=None)
    )


async def get(*, queries: Sequence[GetWebhook], store: WebhookStore) -> Answers[WebhookView]:
    """Each webhook. Items may be WebhookNotFound."""
    found = await store.webhooks([query.webhook_id for query in queries])
    return [
        domain.view_of(found[query.webhook_id]) if query.webhook_id in found else WebhookNotFound() for query in queries
    ]


async def list_all(*, queries: Sequence[ListWebhooks], store: WebhookStore) -> Answers[WebhookPage]:
    """Webhooks, newest first, at most 200 a page."""
    answers: Answers[WebhookPage] = []
    for query in queries:
        limit = _bounded(query.limit)
        page, cursor = _cut(
            [domain.view_of(one) for one in await store.webhooks_before(query.cursor, limit + 1)],
            limit,
            lambda view: view.webhook_id,
        )
        answers.append(WebhookPage(webhooks=page, next_cursor=cursor))
    return answers


def _bounded(limit: int) -> int:
    return max(1, min(limit, LIMIT_MAX))


def _cut(found: list[V], limit: int, id_of: Callable[[V], UUID]) -> tuple[list[V], UUID | None]:
    page = found[:limit]
    return page, id_of(page[-1]) if len(found) > limit else None


async def change(
    *, commands: Sequence[ChangeWebhook], store: WebhookStore, policy: AddressPolicy, ids: Ids, now: datetime
) -> Answers[WebhookView]:
    """Change webhooks; a change that changes nothing is told nowhere. Items may be WebhookNotFound, InvalidWebhook."""
    answers: Answers[WebhookView] = []
    async with store.transaction() as changes:
        known = await changes.lock(sorted({command.webhook_id for command in commands}))
        for command in commands:
            before = known.get(command.webhook_id)
            flaw = WebhookNotFound() if before is None else _flaw(command.url, command.event_types, policy)
            if before is None or flaw is not None:
                answers.append(flaw or WebhookNotFound())
                continue
            after = domain.changed(
                before,
                url=command.url,
                event_types=command.event_types,
                description=command.description,
                state=command.state,
                now=now,
            )
            known[command.webhook_id] = after
            answers.append(domain.view_of(after))
            if after is not before:
                await changes.save([after])
                await changes.append_events([event_of(after, "changed", command.changed_by, ids, now)])
    return answers


async def rotate(
    *,
    commands: Sequence[RotateWebhookSecret],
    store: WebhookStore,
    secrets: WebhookSecrets,
    ids: Ids,
    now: datetime,
) -> Answers[WebhookWithSecret]:
    """Give webhooks a new secret; the one before it signs for 24 hours more. Items may be WebhookNotFound."""
    answers: Answers[WebhookWithSecret] = []
    async with store.transaction() as changes:
        known = await changes.lock(sorted({command.webhook_id for command in commands}))
        for command in commands:
            before = known.get(command.webhook_id)
            if before is None:
                answers.append(WebhookNotFound())
                continue
            after = known[command.webhook_id] = domain.rotated(before, secrets.new(), now=now)
            answers.append(_with_secret(after, now))
            await changes.save([after])
            await changes.append_events([event_of(after, "secret_rotated", command.rotated_by, ids, now)])
    return answers


async def delete(
    *, commands: Sequence[DeleteWebhook], store: WebhookStore, ids: Ids, now: datetime
) -> Answers[WebhookDeleted]:
    """Forget webhooks with their deliveries. Items may be WebhookNotFound, also for one that was deleted already."""
    async with store.transaction() as changes:
        known = await changes.lock(sorted({command.webhook_id for command in commands}))
        deleted_by = {command.webhook_id: command.deleted_by for command in commands}
        await changes.delete(list(known))
        await changes.append_events(
            [
                event_of(webhook, "deleted", deleted_by[webhook_id], ids, now, version=webhook.version + 1)
                for webhook_id, webhook in known.items()
            ]
        )
    return [
        WebhookDeleted(webhook_id=command.webhook_id) if command.webhook_id in known else WebhookNotFound()
        for command in commands
    ]


async def list_deliveries(
    *, queries: Sequence[ListWebhookDeliveries], store: WebhookStore
) -> Answers[WebhookDeliveryPage]:
    """Webhooks' deliveries, newest first, at most 200 a page. Items may be WebhookNotFound."""
    known = await store.webhooks([query.webhook_id for query in queries])
    answers: Answers[WebhookDeliveryPage] = []
    for query in queries:
        if query.webhook_id not in known:
            answers.append(WebhookNotFound())
            continue
        limit = _bounded(query.limit)
        found = await store.webhook_deliveries(
            query.webhook_id, state=query.state, cursor=query.cursor, limit=limit + 1
        )
        page, cursor = _cut(found, limit, lambda view: view.delivery_id)
        answers.append(WebhookDeliveryPage(deliveries=page, next_cursor=cursor))
    return answers


async def redeliver(
    *, commands: Sequence[RedeliverWebhook], store: WebhookStore, now: datetime
) -> Answers[WebhookDeliveryView]:
    """Send events again, now. Safe to repeat: while an attempt is under way nothing changes.

    Items may be WebhookNotFound, WebhookDeliveryNotFound, WebhookDisabled.
    """
    keys = [(command.webhook_id, command.delivery_id) for command in commands]
    webhooks = await store.webhooks([webhook_id for webhook_id, _ in keys])
    known = await store.find_deliveries(keys)

    def flaw(command: RedeliverWebhook) -> PayflowError | None:
        if command.webhook_id not in webhooks:
            return WebhookNotFound()
        if command.delivery_id not in known:
            return WebhookDeliveryNotFound()
        return None if webhooks[command.webhook_id].is_enabled else WebhookDisabled()

    flaws = [flaw(command) for command in commands]
    async with store.transaction() as changes:
        wanted = [command.delivery_id for command, found in zip(commands, flaws, strict=True) if found is None]
        await changes.redeliver(sorted(wanted), now)
    after = await store.find_deliveries(keys)
    return [
        found or after.get(command.delivery_id) or WebhookDeliveryNotFound()
        for command, found in zip(commands, flaws, strict=True)
    ]


async def send_tests(
    *, commands: Sequence[SendWebhookTest], store: WebhookStore, ids: Ids, now: datetime
) -> Answers[WebhookDeliveryView]:
    """Have a `webhook.test` sent to each webhook. Items may be WebhookNotFound, WebhookDisabled."""
    async with store.transaction() as changes:
        webhooks = await changes.lock(sorted({command.webhook_id for command in commands}))
        await changes.add_deliveries(
            [_test_delivery(command, ids, now) for command in commands if _is_enabled(webhooks, command.webhook_id)]
        )
    sent = await store.find_deliveries([(command.webhook_id, command.event_id) for command in commands])

    def answer(command: SendWebhookTest) -> WebhookDeliveryView | PayflowError:
        if command.webhook_id not in webhooks:
            return WebhookNotFound()
        return sent.get(command.event_id) or WebhookDisabled()

    return [answer(command) for command in commands]


def _is_enabled(webhooks: dict[UUID, Webhook], webhook_id: UUID) -> bool:
    return webhook_id in webhooks and webhooks[webhook_id].is_enabled


def _test_delivery(command: SendWebhookTest, ids: Ids, now: datetime) -> Delivery:
    return Delivery(
        delivery_id=ids.new(),
        webhook_id=command.webhook_id,
        event_id=command.event_id,
        event_type=TEST_EVENT,
        subject=str(command.webhook_id),
        body=domain.body_of_test(command.webhook_id, asked_by=command.asked_by, now=now),
        created_at=now,
    )


def event_of(webhook: Webhook, what: str, actor: str, ids: Ids, now: datetime, *, version: int | None = None) -> Event:
    """The event `security.webhook_<what>`. It names the host, not the address: that may carry a secret."""
    host = urlsplit(webhook.url).hostname or ""
    data = SecurityEvent(actor=actor, detail=f"{webhook.state} {host} {' '.join(webhook.event_types)}")
    return Event(
        id=ids.new(),
        source=SOURCE,
        type=f"security.webhook_{what}",
        subject=f"webhook/{webhook.webhook_id}",
        version=webhook.version if version is None else version,
        time=now,
        data=msgspec.to_builtins(data),
    )
