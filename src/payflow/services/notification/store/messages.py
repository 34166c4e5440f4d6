"""Messages, their deliveries and vendors' words about them, and preferences, in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

from payflow.contracts.notification import MessageView
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.notification.domain import (
    DeliveryState,
    Kind,
    Message,
    Outcome,
    Outgoing,
    Preference,
    Receipt,
)
from payflow.services.notification.ports import CodeDelivery, CodeWay

queries = load_queries("payflow.services.notification")


class PostgresMessages:
    """One database transaction over messages (see ports.Messages)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def preferences(self, customer_ids: Sequence[str]) -> dict[str, Preference]:
        rows = await self._connection.fetch(queries.preferences, customer_ids)
        return {row["customer_id"]: Preference(row["language"], tuple(row["channels"])) for row in rows}

    async def add(self, messages: Sequence[Message], *, kept_by: Collection[str] = ()) -> None:
        if not messages:
            return
        ways = [
            (message.message_id, channel, place, message.body is None)
            for message in messages
            for place, channel in enumerate(message.channels)
        ]
        await self._connection.execute(
            queries.add_messages,
            [message.message_id for message in messages],
            [message.customer_id for message in messages],
            [message.kind for message in messages],
            [message.about for message in messages],
            [message.language for message in messages],
            [message.subject for message in messages],
            [message.body for message in messages],
            messages[0].created_at,
            [message_id for message_id, _, _, _ in ways],
            [channel for _, channel, _, _ in ways],
            [place for _, _, place, _ in ways],
            list(kept_by),
            [message.short for message in messages],
            [has_code for _, _, _, has_code in ways],
        )

    async def claim_codes(
        self, abouts: Sequence[str], *, now: datetime, until: datetime
    ) -> dict[str, tuple[CodeWay, ...]]:
        ways: dict[str, tuple[CodeWay, ...]] = {}
        for row in await self._connection.fetch(queries.claim_codes, abouts, now, until):
            way = CodeWay(row["channel"], row["tries"], row["is_doubtful"])
            ways[row["about"]] = (*ways.get(row["about"], ()), way)
        return ways

    async def codes(self, abouts: Sequence[str]) -> dict[str, CodeDelivery]:
        rows = await self._connection.fetch(queries.codes, abouts)
        return {
            row["about"]: CodeDelivery(row["message_id"], row["channel"], DeliveryState(row["state"])) for row in rows
        }

    async def lock_deliveries(self, keys: Sequence[tuple[UUID, str]]) -> dict[tuple[UUID, str], DeliveryState]:
        rows = await self._connection.fetch(
            queries.lock_deliveries, [message_id for message_id, _ in keys], [channel for _, channel in keys]
        )
        return {(row["message_id"], row["channel"]): DeliveryState(row["state"]) for row in rows}

    async def add_receipts(self, receipts: Sequence[Receipt], *, now: datetime) -> set[tuple[str, str]]:
        rows = await self._connection.fetch(
            queries.add_receipts,
            [receipt.vendor for receipt in receipts],
            [receipt.event_id for receipt in receipts],
            [receipt.message_id for receipt in receipts],
            [receipt.channel for receipt in receipts],
            [receipt.vendor_id for receipt in receipts],
            [receipt.status for receipt in receipts],
            [receipt.reason for receipt in receipts],
            [receipt.occurred_at for receipt in receipts],
            now,
        )
        return {(row["vendor"], row["event_id"]) for row in rows}

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        await self._connection.execute(queries.finish, *_columns(outcomes))


class PostgresStore:
    """The notification service's tables (see ports.Store)."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresMessages]:
        async with self._database.transaction() as connection:
            yield PostgresMessages(connection)

    async def claim_due(
        self, *, channel: str | None, in_use: Sequence[str], now: datetime, until: datetime, limit: int
    ) -> list[Outgoing]:
        rows = await self._database.fetch(queries.claim_due, now, until, limit, channel, list(in_use))
        return [Outgoing(**{**dict(row), "kind": Kind(row["kind"])}) for row in rows]

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        if outcomes:
            await self._database.execute(queries.finish, *_columns(outcomes))

    async def release_codes(self, message_ids: Sequence[UUID], now: datetime) -> None:
        if message_ids:
            await self._database.execute(queries.release_codes, message_ids, now)

    async def list_messages(self, customer_id: str, limit: int) -> list[MessageView]:
        rows = await self._database.fetch(queries.list_messages, customer_id, limit)
        return [MessageView(**dict(row)) for row in rows]

    async def set_preferences(self, preferences: Mapping[str, Preference], now: datetime) -> None:
        if not preferences:
            return
        await self._database.execute(
            queries.set_preferences,
            list(preferences),
            [preference.language for preference in preferences.values()],
            [",".join(preference.channels) for preference in preferences.values()],
            now,
        )

    async def delete_before(self, instant: datetime) -> int:
        return int(await self._database.fetchval(queries.delete_before, instant))


def _columns(outcomes: Sequence[Outcome]) -> tuple[list[object], ...]:
    return (
        [outcome.message_id for outcome in outcomes],
        [outcome.channel for outcome in outcomes],
        [outcome.state for outcome in outcomes],
        [outcome.next_try_at for outcome in outcomes],
        [outcome.ended_at for outcome in outcomes],
        [outcome.reason for outcome in outcomes],
        [outcome.vendor_id for outcome in outcomes],
        [outcome.is_doubtful for outcome in outcomes],
        [outcome.tries for outcome in outcomes],
    )
