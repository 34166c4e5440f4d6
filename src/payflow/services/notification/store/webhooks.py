"""Webhooks and their deliveries in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import asyncpg
import msgspec

from payflow.contracts.notification import WebhookDeliveryState, WebhookDeliveryView, WebhookState
from payflow.kernel.envelope import Event
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.notification.domain.webhooks import Attempt, Delivery, Secret, Settled, Webhook, live_secrets

queries = load_queries("payflow.services.notification")

# How many deliveries of one webhook are taken at once, and of one that is failing.
TAKEN_AT_ONCE: Final = 16
TAKEN_OF_A_FAILING_ONE: Final = 2


class PostgresWebhookChanges:
    """One database transaction over webhooks (see ports.WebhookChanges). The secrets are encrypted."""

    def __init__(self, connection: Connection, cipher: ColumnCipher, outbox: Outbox) -> None:
        self._connection = connection
        self._cipher = cipher
        self._outbox = outbox
        self.has_events = False

    async def count(self) -> int:
        await self._connection.execute(queries.lock_webhook_count)
        return int(await self._connection.fetchval(queries.count_webhooks))

    async def add(self, webhooks: Sequence[Webhook]) -> None:
        await self._connection.execute(
            queries.add_webhooks,
            [webhook.webhook_id for webhook in webhooks],
            [webhook.url for webhook in webhooks],
            [",".join(webhook.event_types) for webhook in webhooks],
            [webhook.description for webhook in webhooks],
            [webhook.customer_id for webhook in webhooks],
            [webhook.state for webhook in webhooks],
            [webhook.disabled_reason for webhook in webhooks],
            [_sealed(webhook, self._cipher) for webhook in webhooks],
            [webhook.failing_since for webhook in webhooks],
            [webhook.version for webhook in webhooks],
            [webhook.created_by for webhook in webhooks],
            [webhook.created_at for webhook in webhooks],
            [webhook.updated_at for webhook in webhooks],
        )

    async def lock(self, webhook_ids: Sequence[UUID]) -> dict[UUID, Webhook]:
        rows = await self._connection.fetch(queries.lock_webhooks, webhook_ids)
        return {row["webhook_id"]: _webhook(row, _secrets(row, self._cipher)) for row in rows}

    async def save(self, webhooks: Sequence[Webhook]) -> None:
        await self._connection.execute(
            queries.save_webhooks,
            [webhook.webhook_id for webhook in webhooks],
            [webhook.url for webhook in webhooks],
            [",".join(webhook.event_types) for webhook in webhooks],
            [webhook.description for webhook in webhooks],
            [webhook.state for webhook in webhooks],
            [webhook.disabled_reason for webhook in webhooks],
            [_sealed(webhook, self._cipher) for webhook in webhooks],
            [webhook.failing_since for webhook in webhooks],
            [webhook.version for webhook in webhooks],
            [webhook.updated_at for webhook in webhooks],
        )

    async def delete(self, webhook_ids: Sequence[UUID]) -> None:
        await self._connection.execute(queries.delete_webhooks, webhook_ids)

    async def listening(self) -> list[Webhook]:
        return [_webhook(row, ()) for row in await self._connection.fetch(queries.listening_webhooks)]

    async def add_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        if not deliveries:
            return
        await self._connection.execute(
            queries.add_webhook_deliveries,
            [delivery.delivery_id for delivery in deliveries],
            [delivery.webhook_id for delivery in deliveries],
            [delivery.event_id for delivery in deliveries],
            [delivery.event_type for delivery in deliveries],
            [delivery.subject for delivery in deliveries],
            [delivery.body for delivery in deliveries],
            deliveries[0].created_at,
        )

    async def redeliver(self, delivery_ids: Sequence[UUID], now: datetime) -> None:
        await self._connection.execute(queries.redeliver_webhooks, delivery_ids, now)

    async def settle(self, settled: Sequence[Settled]) -> set[UUID]:
        rows = await self._connection.fetch(
            queries.settle_webhooks,
            [one.delivery_id for one in settled],
            [one.attempts for one in settled],
            [one.state for one in settled],
            [one.next_attempt_at for one in settled],
            [one.status_code for one in settled],
            [one.error for one in settled],
            [one.at for one in settled],
        )
        return {row["delivery_id"] for row in rows}

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._outbox.append(self._connection, events)
        self.has_events = self.has_events or bool(events)


class PostgresWebhookStore:
    """The tables of webhooks (see ports.WebhookStore)."""

    def __init__(self, *, database: Database, cipher: ColumnCipher, outbox: Outbox) -> None:
        self._database = database
        self._cipher = cipher
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresWebhookChanges]:
        async with self._database.transaction() as connection:
            changes = self.changes_on(connection)
            yield changes
        if changes.has_events:
            self._outbox.wake_consumers()

    def changes_on(self, connection: Connection) -> PostgresWebhookChanges:
        """Changes in somebody else's transaction: the event consumer's."""
        return PostgresWebhookChanges(connection, self._cipher, self._outbox)

    async def webhooks(self, webhook_ids: Sequence[UUID]) -> dict[UUID, Webhook]:
        rows = await self._database.fetch(queries.webhooks, webhook_ids)
        return {row["webhook_id"]: _webhook(row, _secrets(row, self._cipher)) for row in rows}

    async def webhooks_before(self, cursor: UUID | None, limit: int) -> list[Webhook]:
        rows = await self._database.fetch(queries.webhooks_before, cursor, limit)
        return [_webhook(row, _secrets(row, self._cipher)) for row in rows]

    async def webhook_deliveries(
        self, webhook_id: UUID, *, state: WebhookDeliveryState | None, cursor: UUID | None, limit: int
    ) -> list[WebhookDeliveryView]:
        rows = await self._database.fetch(queries.webhook_deliveries, webhook_id, state, cursor, limit)
        return [_delivery_view(row) for row in rows]

    async def find_deliveries(self, keys: Sequence[tuple[UUID, UUID]]) -> dict[UUID, WebhookDeliveryView]:
        rows = await self._database.fetch(
            queries.find_webhook_deliveries, [webhook_id for webhook_id, _ in keys], [either for _, either in keys]
        )
        return {row["asked"]: _delivery_view(row) for row in rows}

    async def claim_webhooks(
        self, *, now: datetime, until: datetime, busy: Sequence[UUID], limit: int
    ) -> list[Attempt]:
        rows = await self._database.fetch(
            queries.claim_webhooks, now, until, busy, limit, TAKEN_AT_ONCE, TAKEN_OF_A_FAILING_ONE
        )
        secrets: dict[UUID, tuple[str, ...]] = {}
        for row in rows:
            if row["webhook_id"] not in secrets:
                live = live_secrets(_secrets(row, self._cipher), now=now)
                secrets[row["webhook_id"]] = tuple(secret.text for secret in live)
        return [_attempt(row, secrets[row["webhook_id"]]) for row in rows]

    async def pass_events_over(self, consumer: str) -> bool:
        seen = await self._database.fetchrow(queries.look_for_listeners, consumer)
        if seen is None or seen["is_heard"]:
            return False
        if seen["is_behind"]:
            # None where a webhook was enabled meanwhile.
            return await self._database.execute(queries.pass_events_over, consumer) != "INSERT 0 0"
        return True

    async def delete_webhook_deliveries_before(self, instant: datetime) -> int:
        return int(await self._database.fetchval(queries.delete_webhook_deliveries_before, instant))


def _place(webhook_id: UUID) -> str:
    return f"webhook.secrets:{webhook_id}"


def _sealed(webhook: Webhook, cipher: ColumnCipher) -> bytes:
    return cipher.encrypt(msgspec.json.encode(webhook.secrets).decode(), place=_place(webhook.webhook_id))


def _secrets(row: asyncpg.Record, cipher: ColumnCipher) -> tuple[Secret, ...]:
    opened = cipher.decrypt(row["secrets_encrypted"], place=_place(row["webhook_id"]))
    return msgspec.json.decode(opened, type=tuple[Secret, ...])


def _webhook(row: asyncpg.Record, secrets: tuple[Secret, ...]) -> Webhook:
    return Webhook(
        webhook_id=row["webhook_id"],
        url=row["url"],
        event_types=tuple(row["event_types"]),
        description=row["description"],
        customer_id=row["customer_id"],
        state=WebhookState(row["state"]),
        disabled_reason=row["disabled_reason"],
        secrets=secrets,
        failing_since=row["failing_since"],
        version=row["version"],
        created_by=row["created_by"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _attempt(row: asyncpg.Record, secrets: tuple[str, ...]) -> Attempt:
    values: dict[str, Any] = {name: value for name, value in row.items() if name != "secrets_encrypted"}
    return Attempt(**values, secrets=secrets)


def _delivery_view(row: asyncpg.Record) -> WebhookDeliveryView:
    values: dict[str, Any] = {name: value for name, value in row.items() if name != "asked"}
    return WebhookDeliveryView(**{**values, "state": WebhookDeliveryState(row["state"])})
