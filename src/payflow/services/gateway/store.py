"""The gateway's database: users, sessions and revocations through named queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from uuid import UUID

import asyncpg

from payflow.contracts.gateway import Role
from payflow.kernel.envelope import Event
from payflow.platform.eventlog import Outbox
from payflow.platform.postgres import Connection, Database, load_queries
from payflow.services.gateway.domain.sessions import NewSession, RefreshToken, Revocation
from payflow.services.gateway.domain.users import User
from payflow.services.gateway.ports import KnownRevocations

queries = load_queries(__package__ or "payflow.services.gateway")


class PostgresTransaction:
    """One database transaction (see ports.Transaction)."""

    def __init__(self, connection: Connection, outbox: Outbox) -> None:
        self._connection = connection
        self._outbox = outbox
        self.has_events = False

    async def insert_users(self, users: Sequence[User]) -> set[UUID]:
        rows = await self._connection.fetch(
            queries.insert_users,
            [user.user_id for user in users],
            [user.username for user in users],
            [user.role.value for user in users],
            [user.customer_id for user in users],
            [user.password_hash for user in users],
            users[0].created_at if users else None,
        )
        return {row["user_id"] for row in rows}

    async def set_enabled(self, user_ids: Sequence[UUID], *, is_enabled: bool) -> dict[UUID, int]:
        rows = await self._connection.fetch(queries.set_enabled, user_ids, is_enabled)
        return {row["user_id"]: row["version"] for row in rows}

    async def open_sessions(self, sessions: Sequence[NewSession]) -> set[UUID]:
        if not sessions:
            return set()
        rows = await self._connection.fetch(
            queries.open_sessions,
            [session.session_id for session in sessions],
            [session.user_id for session in sessions],
            [session.opened_at for session in sessions],
            [session.expires_at for session in sessions],
        )
        opened = {row["session_id"] for row in rows}
        tokens = [(session.token_sha256, session.session_id) for session in sessions if session.session_id in opened]
        await self._add_refresh_tokens(tokens, sessions[0].opened_at)
        return opened

    async def lock_refresh_tokens(self, digests: Sequence[bytes]) -> dict[bytes, RefreshToken]:
        if not digests:
            return {}
        await self._connection.execute(queries.lock_sessions, digests)
        rows = await self._connection.fetch(queries.refresh_tokens, digests)
        return {row["token_sha256"]: _refresh_token(row) for row in rows}

    async def rotate(self, *, used: Sequence[bytes], fresh: Sequence[tuple[bytes, UUID]], now: datetime) -> None:
        await self._connection.execute(queries.use_refresh_tokens, used, now)
        await self._add_refresh_tokens(fresh, now)

    async def end_sessions(self, sessions: Sequence[tuple[UUID, str]], now: datetime) -> set[UUID]:
        ids, reasons = [session_id for session_id, _ in sessions], [reason for _, reason in sessions]
        rows = await self._connection.fetch(queries.end_sessions, ids, reasons, now)
        return {row["session_id"] for row in rows}

    async def open_sessions_of(self, user_ids: Sequence[UUID], *, expiring_after: datetime) -> list[UUID]:
        rows = await self._connection.fetch(queries.open_sessions_of, user_ids, expiring_after)
        return [row["session_id"] for row in rows]

    async def revoke(self, revocations: Sequence[Revocation], now: datetime) -> int:
        number: int = await self._connection.fetchval(
            queries.revoke,
            [revocation.id for revocation in revocations],
            [revocation.ends_at for revocation in revocations],
            [revocation.reason for revocation in revocations],
            now,
        )
        return number

    async def append_events(self, events: Sequence[Event]) -> None:
        await self._outbox.append(self._connection, events)
        self.has_events = self.has_events or bool(events)

    async def _add_refresh_tokens(self, tokens: Sequence[tuple[bytes, UUID]], now: datetime) -> None:
        digests, sessions = [digest for digest, _ in tokens], [session_id for _, session_id in tokens]
        await self._connection.execute(queries.add_refresh_tokens, digests, sessions, now)


class PostgresStore:
    """The gateway's tables (see ports.Store)."""

    def __init__(self, *, database: Database, outbox: Outbox) -> None:
        self._database = database
        self._outbox = outbox

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[PostgresTransaction]:
        async with self._database.transaction() as connection:
            transaction = PostgresTransaction(connection, self._outbox)
            yield transaction
        if transaction.has_events:
            self._outbox.wake_consumers()

    async def has_users(self) -> bool:
        return bool(await self._database.fetchval(queries.has_users))

    async def users(self, usernames: Sequence[str]) -> dict[str, User]:
        rows = await self._database.fetch(queries.users, usernames)
        return {row["username"].lower(): _user(row) for row in rows}

    async def users_page(self, *, after: str | None, limit: int) -> list[User]:
        return [_user(row) for row in await self._database.fetch(queries.users_page, after, limit)]

    async def revoked_among(self, ids: Sequence[str]) -> set[str]:
        rows = await self._database.fetch(queries.revoked_among, ids)
        return {row["id"] for row in rows}

    async def revocations(self, now: datetime) -> KnownRevocations:
        rows = await self._database.fetch(queries.revocations, now)
        ends = {row["id"]: row["ends_at"] for row in rows if row["id"] is not None}
        return KnownRevocations(number=rows[0]["up_to"], ends=ends)

    async def revocation_number(self) -> int:
        row = await self._database.fetchrow(queries.revocation_count)
        assert row is not None
        return int(row["number"])

    async def generation(self) -> UUID:
        """The name of this database's life; given at the first call, whichever gateway makes it."""
        await self._database.execute(queries.name_generation)
        row = await self._database.fetchrow(queries.revocation_count)
        assert row is not None
        generation: UUID = row["generation"]
        return generation

    async def forget(self, *, revoked_before: datetime, expired_before: datetime) -> None:
        await self._database.execute(queries.forget_revoked, revoked_before)
        await self._database.execute(queries.forget_sessions, expired_before)


def _user(row: asyncpg.Record) -> User:
    return User(
        user_id=row["user_id"],
        username=row["username"],
        role=Role(row["role"]),
        customer_id=row["customer_id"],
        password_hash=row["password_hash"],
        is_enabled=row["is_enabled"],
        created_at=row["created_at"],
    )


def _refresh_token(row: asyncpg.Record) -> RefreshToken:
    return RefreshToken(
        token_sha256=row["token_sha256"],
        session_id=row["session_id"],
        used_at=row["used_at"],
        session_expires_at=row["expires_at"],
        session_ended_at=row["ended_at"],
        user=_user(row),
    )
