"""In-memory ports of the notification service's webhooks. The store passes the same suite as the real one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from uuid import UUID

from payflow.contracts.notification import WebhookDeliveryState, WebhookDeliveryView
from payflow.kernel.envelope import Event
from payflow.services.notification.domain.webhooks import Attempt, Delivery, Reply, Settled, Webhook, live_secrets
from payflow.services.notification.store import TAKEN_AT_ONCE, TAKEN_OF_A_FAILING_ONE


@dataclass
class _Row:
    delivery: Delivery
    next_attempt_at: datetime
    state: WebhookDeliveryState = WebhookDeliveryState.PENDING
    attempts: int = 0
    attempts_before: int = 0
    leased_until: datetime | None = None
    status_code: int | None = None
    error: str | None = None
    last_attempt_at: datetime | None = None
    delivered_at: datetime | None = None

    def is_leased(self, now: datetime) -> bool:
        return self.leased_until is not None and self.leased_until > now

    def view(self) -> WebhookDeliveryView:
        is_pending = self.state is WebhookDeliveryState.PENDING
        return WebhookDeliveryView(
            delivery_id=self.delivery.delivery_id,
            event_id=self.delivery.event_id,
            event_type=self.delivery.event_type,
            subject=self.delivery.subject,
            state=self.state,
            attempts=self.attempts,
            status_code=self.status_code,
            error=self.error,
            next_attempt_at=self.next_attempt_at if is_pending else None,
            last_attempt_at=self.last_attempt_at,
            delivered_at=self.delivered_at,
            created_at=self.delivery.created_at,
        )


@dataclass
class _Tables:
    webhooks: dict[UUID, Webhook] = field(default_factory=dict)
    rows: dict[tuple[UUID, UUID], _Row] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)

    def by_delivery(self) -> dict[UUID, _Row]:
        return {row.delivery.delivery_id: row for row in self.rows.values()}


class FakeWebhookChanges:
    """One transaction over the in-memory tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    async def count(self) -> int:
        return len(self._tables.webhooks)

    async def add(self, webhooks: Sequence[Webhook]) -> None:
        for webhook in webhooks:
            self._tables.webhooks.setdefault(webhook.webhook_id, webhook)

    async def lock(self, webhook_ids: Sequence[UUID]) -> dict[UUID, Webhook]:
        return {key: webhook for key, webhook in self._tables.webhooks.items() if key in webhook_ids}

    async def save(self, webhooks: Sequence[Webhook]) -> None:
        for webhook in webhooks:
            self._tables.webhooks[webhook.webhook_id] = webhook

    async def delete(self, webhook_ids: Sequence[UUID]) -> None:
        for webhook_id in webhook_ids:
            self._tables.webhooks.pop(webhook_id, None)
        self._tables.rows = {key: row for key, row in self._tables.rows.items() if key[0] not in webhook_ids}

    async def listening(self) -> list[Webhook]:
        return [replace(webhook, secrets=()) for webhook in self._tables.webhooks.values() if webhook.is_enabled]

    async def add_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            row = _Row(delivery, delivery.created_at)
            self._tables.rows.setdefault((delivery.webhook_id, delivery.event_id), row)

    async def redeliver(self, delivery_ids: Sequence[UUID], now: datetime) -> None:
        for delivery_id, row in self._tables.by_delivery().items():
            if delivery_id in delivery_ids and not row.is_leased(now):
                row.state, row.next_attempt_at = WebhookDeliveryState.PENDING, now
                row.attempts_before, row.delivered_at, row.leased_until = row.attempts, None, None

    async def settle(self, settled: Sequence[Settled]) -> set[UUID]:
        written = set()
        rows = self._tables.by_delivery()
        for one in settled:
            row = rows.get(one.delivery_id)
            if row is None or row.attempts != one.attempts or row.state is not WebhookDeliveryState.PENDING:
                continue
            row.state, row.next_attempt_at, row.leased_until = one.state, one.next_attempt_at, None
            row.status_code, row.error = one.status_code, one.error
            row.delivered_at = one.at if one.state is WebhookDeliveryState.DELIVERED else None
            written.add(one.delivery_id)
        return written

    async def append_events(self, events: Sequence[Event]) -> None:
        self._tables.events.extend(events)


class FakeWebhookStore:
    """The tables of webhooks in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()

    @property
    def events(self) -> list[Event]:
        """What changes have told of."""
        return self._tables.events

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeWebhookChanges]:
        async with self._lock:
            working = copy.deepcopy(self._tables)
            yield FakeWebhookChanges(working)
            self._tables = working

    async def webhooks(self, webhook_ids: Sequence[UUID]) -> dict[UUID, Webhook]:
        return {key: webhook for key, webhook in self._tables.webhooks.items() if key in webhook_ids}

    async def webhooks_before(self, cursor: UUID | None, limit: int) -> list[Webhook]:
        found = [webhook for key, webhook in self._tables.webhooks.items() if cursor is None or key < cursor]
        return sorted(found, key=lambda webhook: webhook.webhook_id, reverse=True)[:limit]

    async def webhook_deliveries(
        self, webhook_id: UUID, *, state: WebhookDeliveryState | None, cursor: UUID | None, limit: int
    ) -> list[WebhookDeliveryView]:
        found = [
            row.view()
            for row in self._tables.rows.values()
            if row.delivery.webhook_id == webhook_id
            and state in (None, row.state)
            and (cursor is None or row.delivery.delivery_id < cursor)
        ]
        return sorted(found, key=lambda view: view.delivery_id, reverse=True)[:limit]

    async def find_deliveries(self, keys: Sequence[tuple[UUID, UUID]]) -> dict[UUID, WebhookDeliveryView]:
        return {
            either: row.view()
            for webhook_id, either in keys
            for row in self._tables.rows.values()
            if row.delivery.webhook_id == webhook_id and either in (row.delivery.delivery_id, row.delivery.event_id)
        }

    async def claim_webhooks(
        self, *, now: datetime, until: datetime, busy: Sequence[UUID], limit: int
    ) -> list[Attempt]:
        claimed: list[Attempt] = []
        for webhook in self._tables.webhooks.values():
            if not webhook.is_enabled or webhook.webhook_id in busy:
                continue
            due = [
                row
                for row in self._tables.rows.values()
                if row.delivery.webhook_id == webhook.webhook_id
                and row.state is WebhookDeliveryState.PENDING
                and row.next_attempt_at <= now
                and not row.is_leased(now)
            ]
            due.sort(key=lambda row: row.next_attempt_at)
            for row in due[: TAKEN_AT_ONCE if webhook.failing_since is None else TAKEN_OF_A_FAILING_ONE][
                : limit - len(claimed)
            ]:
                row.attempts, row.last_attempt_at = row.attempts + 1, now
                row.leased_until = row.next_attempt_at = until
                claimed.append(_attempt(row, webhook, now))
        return claimed

    async def pass_events_over(self, consumer: str) -> bool:
        return not any(webhook.is_enabled for webhook in self._tables.webhooks.values())

    async def delete_webhook_deliveries_before(self, instant: datetime) -> int:
        old = [key for key, row in self._tables.rows.items() if row.delivery.created_at < instant]
        for key in old:
            del self._tables.rows[key]
        return len(old)


def _attempt(row: _Row, webhook: Webhook, now: datetime) -> Attempt:
    return Attempt(
        delivery_id=row.delivery.delivery_id,
        webhook_id=webhook.webhook_id,
        event_id=row.delivery.event_id,
        body=row.delivery.body,
        attempts=row.attempts,
        tries=row.attempts - row.attempts_before,
        url=webhook.url,
        secrets=tuple(secret.text for secret in live_secrets(webhook.secrets, now=now)),
        failing_since=webhook.failing_since,
    )


class FakeSender:
    """Receivers that answer as they are told."""

    def __init__(self) -> None:
        self.sent: list[Attempt] = []
        self.answer: Callable[[Attempt], Reply] = lambda _: Reply(200)

    async def send(self, attempt: Attempt, *, now: datetime) -> Reply:
        self.sent.append(attempt)
        await asyncio.sleep(0)
        return self.answer(attempt)


class NumberedSecrets:
    """Secrets that can be told apart."""

    def __init__(self) -> None:
        self._count = 0

    def new(self) -> str:
        self._count += 1
        return f"whsec_{self._count:032d}"
