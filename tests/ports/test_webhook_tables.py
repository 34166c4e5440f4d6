"""What webhooks are in PostgreSQL: their secrets, and their place in the event log."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from payflow.contracts.notification import DeleteWebhook
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Consumer, Outbox
from payflow.services.notification.consumer import WEBHOOK_CONSUMER, WEBHOOK_TOPICS, WebhookConsumer, while_heard
from payflow.services.notification.store import PostgresWebhookStore
from tests.builders_webhooks import PostgresWebhookWorld, a_payment_event, until_at_least, webhooks_over_postgres
from tests.conftest import ConnectAs


@pytest.fixture
async def postgres(connect_as: ConnectAs, database_url: str, cipher: ColumnCipher) -> PostgresWebhookWorld:
    return await webhooks_over_postgres(connect_as, database_url, cipher)


async def test_no_secret_is_stored_readable(postgres: PostgresWebhookWorld) -> None:
    registered = await postgres.registered()

    (row,) = await postgres.database.fetch("SELECT webhook::text AS text, secrets_encrypted FROM webhook")

    assert registered.secret not in row["text"]
    assert registered.secret.encode() not in row["secrets_encrypted"]


async def test_while_nobody_listens_events_are_passed_over_and_then_read(
    postgres: PostgresWebhookWorld, connect_as: ConnectAs, database_url: str
) -> None:
    store: PostgresWebhookStore = postgres.store
    confirm = await connect_as("confirm")
    outbox = Outbox(confirm)

    async def tell() -> None:
        async with confirm.transaction() as connection:
            await outbox.append(connection, [a_payment_event()])

    handler = WebhookConsumer(store=store, clock=postgres.clock, ids=postgres.ids)
    consumer = Consumer(
        name=WEBHOOK_CONSUMER,
        topics=WEBHOOK_TOPICS,
        handler=handler,
        database=postgres.database,
        listen_url=database_url,
    )
    await tell()
    await postgres.database.fetchval("SELECT event_log.number_batches(1000)")
    hearing = asyncio.create_task(while_heard(consume=consumer.run, store=store, pause_s=0.05))
    try:
        await until_at_least(lambda: _position(postgres), 1)
        webhook_id = await postgres.register()
        await tell()
        await until_at_least(lambda: _count(postgres, webhook_id), 1)
        await postgres.api.delete_webhooks([DeleteWebhook(webhook_id=webhook_id, deleted_by="op")])
        await asyncio.sleep(0.2)
        await tell()
        await postgres.database.fetchval("SELECT event_log.number_batches(1000)")
        # The two of ours, and what was told of the webhook's registration and its deletion.
        await until_at_least(lambda: _position(postgres), 5)
    finally:
        hearing.cancel()
        await asyncio.gather(hearing, return_exceptions=True)


async def test_no_other_role_moves_the_webhooks_position(postgres: PostgresWebhookWorld, connect_as: ConnectAs) -> None:
    risk = await connect_as("risk")
    await postgres.store.pass_events_over(WEBHOOK_CONSUMER)
    before = await _position(postgres)

    moved = await risk.execute("UPDATE event_log.consumer SET position = 999 WHERE name = $1", WEBHOOK_CONSUMER)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await risk.execute("INSERT INTO event_log.consumer (name, position) VALUES ('notification.more', 9)")

    assert moved == "UPDATE 0"
    assert await _position(postgres) == before


async def _position(world: PostgresWebhookWorld) -> int:
    query = "SELECT coalesce((SELECT position FROM event_log.consumer WHERE name = $1), 0)"
    return int(await world.database.fetchval(query, WEBHOOK_CONSUMER))


async def _count(world: PostgresWebhookWorld, webhook_id: object) -> int:
    return int(await world.database.fetchval("SELECT count(*) FROM webhook_delivery WHERE webhook_id = $1", webhook_id))
