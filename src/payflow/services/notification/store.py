"""The notification service's database: messages, deliveries and preferences through named queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from payflow.contracts.notification import MessageView
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.notification.domain import DeliveryState, Kind, Message, Outcome, Outgoing, Preference
from payflow.services.notification.ports import CodeDelivery

queries = load_queries(__package__ or "payflow.services.notification")


class PostgresMessages:
    """One database transaction over messages (see ports.Messages)."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def preferences(self, customer_ids: Sequence[str]) -> dict[str, Preference]:
        rows = await self._connection.fetch(queries.preferences, customer_ids)
        return {row["customer_id"]: Preference(row["language"], tuple(row["channels"])) for row in rows}

    async def add(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        ways = [(message.message_id, channel) for message in messages for channel in message.channels]
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
            [message_id for message_id, _ in ways],
            [channel for _, channel in ways],
        )

    async def claim_codes(self, abouts: Sequence[str], *, now: datetime, until: datetime) -> dict[str, int]:
        rows = await self._connection.fetch(queries.claim_codes, abouts, now, until)
        return {row["about"]: row["tries"] for row in rows}

    async def codes(self, abouts: Sequence[str]) -> dict[str, CodeDelivery]:
        rows = await self._connection.fetch(queries.codes, abouts)
        return {
            row["about"]: CodeDelivery(row["message_id"], row["channel"], DeliveryState(row["state"])) for row in rows
        }


class PostgresStore:
    """The notification service's tables (see ports.Store)."""

    def __init__(self, *, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresMessages]:
        async with self._database.transaction() as connection:
            yield PostgresMessages(connection)

    async def claim_due(self, *, now: datetime, until: datetime, limit: int) -> list[Outgoing]:
        rows = await self._database.fetch(queries.claim_due, now, until, limit)
        return [Outgoing(**{**dict(row), "kind": Kind(row["kind"])}) for row in rows]

    async def finish(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        await self._database.execute(
            queries.finish,
            [outcome.message_id for outcome in outcomes],
            [outcome.channel for outcome in outcomes],
            [outcome.state for outcome in outcomes],
            [outcome.next_try_at for outcome in outcomes],
            [outcome.ended_at for outcome in outcomes],
            [outcome.reason for outcome in outcomes],
        )

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
