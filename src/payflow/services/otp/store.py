"""The otp service's database: challenges through named queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg

from payflow.kernel.envelope import Event
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.otp.domain import Challenge, ChallengeState, Issue

queries = load_queries(__package__ or "payflow.services.otp")


class PostgresChallenges:
    """One database transaction over the challenges (see ports.Challenges)."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self.has_events = False

    async def lock_customers(self, customer_ids: Sequence[str]) -> None:
        await self._connection.fetch(queries.lock_customers, customer_ids)

    async def open_challenges(self, payment_ids: Sequence[UUID]) -> dict[UUID, Challenge]:
        rows = await self._connection.fetch(queries.open_challenges, payment_ids)
        return {row["payment_id"]: _challenge(row) for row in rows}

    async def issues_since(self, customer_ids: Sequence[str], since: datetime) -> list[Issue]:
        rows = await self._connection.fetch(queries.issues_since, customer_ids, since)
        return [Issue(**dict(row)) for row in rows]

    async def challenges_of(self, payment_ids: Sequence[UUID]) -> list[Challenge]:
        return [_challenge(row) for row in await self._connection.fetch(queries.challenges_of, payment_ids)]

    async def insert(self, challenges: Sequence[Challenge]) -> None:
        if not challenges:
            return
        await self._connection.execute(
            queries.insert_challenges,
            [challenge.challenge_id for challenge in challenges],
            [challenge.payment_id for challenge in challenges],
            [challenge.customer_id for challenge in challenges],
            [challenge.key_id for challenge in challenges],
            [challenge.nonce for challenge in challenges],
            [challenge.binding for challenge in challenges],
            [challenge.state for challenge in challenges],
            [challenge.tries_max for challenge in challenges],
            [challenge.issued_at for challenge in challenges],
            [challenge.expires_at for challenge in challenges],
            [challenge.ended_at for challenge in challenges],
            [challenge.end_reason for challenge in challenges],
        )

    async def update(self, challenges: Sequence[Challenge]) -> None:
        if not challenges:
            return
        await self._connection.execute(
            queries.update_challenges,
            [challenge.challenge_id for challenge in challenges],
            [challenge.state for challenge in challenges],
            [challenge.tries for challenge in challenges],
            [challenge.ended_at for challenge in challenges],
            [challenge.end_reason for challenge in challenges],
            [challenge.attempt_id for challenge in challenges],
        )

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._outbox.append(self._connection, events)
        self.has_events = self.has_events or bool(events)


class PostgresStore:
    """The otp service's tables (see ports.Store)."""

    def __init__(self, *, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresChallenges]:
        async with self._database.transaction() as connection:
            challenges = PostgresChallenges(connection, self._outbox)
            yield challenges
        if challenges.has_events:
            self._outbox.wake_consumers()

    async def mark_sent(self, challenge_ids: Sequence[UUID], now: datetime) -> None:
        if challenge_ids:
            await self._database.execute(queries.mark_sent, challenge_ids, now)

    async def delete_before(self, instant: datetime) -> int:
        return int(await self._database.fetchval(queries.delete_before, instant))


def _challenge(row: asyncpg.Record) -> Challenge:
    return Challenge(**{**dict(row), "state": ChallengeState(row["state"])})
