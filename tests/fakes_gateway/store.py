"""The gateway's database in memory."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

import msgspec

from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.services.gateway.domain.sessions import NewSession, RefreshToken, Revocation
from payflow.services.gateway.domain.users import User, name_key
from payflow.services.gateway.ports import KnownRevocations


@dataclass
class _Session:
    session: NewSession
    ended_at: datetime | None = None


@dataclass
class _Tables:
    users: dict[str, User] = field(default_factory=dict)
    versions: dict[UUID, int] = field(default_factory=dict)
    sessions: dict[UUID, _Session] = field(default_factory=dict)
    tokens: dict[bytes, tuple[UUID, datetime | None]] = field(default_factory=dict)
    revoked: dict[str, datetime] = field(default_factory=dict)
    number: int = 0
    events: list[Event] = field(default_factory=list)


class FakeGatewayTransaction:
    """One transaction over the in-memory tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    def _user(self, user_id: UUID) -> User:
        return next(user for user in self._tables.users.values() if user.user_id == user_id)

    async def insert_users(self, users: Sequence[User]) -> set[UUID]:
        inserted = set()
        for user in users:
            if name_key(user.username) not in self._tables.users:
                self._tables.users[name_key(user.username)] = user
                self._tables.versions[user.user_id] = 1
                inserted.add(user.user_id)
        return inserted

    async def set_enabled(self, user_ids: Sequence[UUID], *, is_enabled: bool) -> dict[UUID, int]:
        changed = {}
        for user_id in user_ids:
            user = self._user(user_id)
            if user.is_enabled != is_enabled:
                self._tables.users[name_key(user.username)] = msgspec.structs.replace(user, is_enabled=is_enabled)
                self._tables.versions[user_id] += 1
                changed[user_id] = self._tables.versions[user_id]
        return changed

    async def open_sessions(self, sessions: Sequence[NewSession]) -> set[UUID]:
        opened = [session for session in sessions if self._user(session.user_id).is_enabled]
        for session in opened:
            self._tables.sessions[session.session_id] = _Session(session)
            self._tables.tokens[session.token_sha256] = (session.session_id, None)
        return {session.session_id for session in opened}

    async def lock_refresh_tokens(self, digests: Sequence[bytes]) -> dict[bytes, RefreshToken]:
        found = {}
        for digest in digests:
            if digest in self._tables.tokens:
                session_id, used_at = self._tables.tokens[digest]
                row = self._tables.sessions[session_id]
                found[digest] = RefreshToken(
                    token_sha256=digest,
                    session_id=session_id,
                    used_at=used_at,
                    session_expires_at=row.session.expires_at,
                    session_ended_at=row.ended_at,
                    user=self._user(row.session.user_id),
                )
        return found

    async def rotate(self, *, used: Sequence[bytes], fresh: Sequence[tuple[bytes, UUID]], now: datetime) -> None:
        for digest in used:
            self._tables.tokens[digest] = (self._tables.tokens[digest][0], now)
        for digest, session_id in fresh:
            self._tables.tokens[digest] = (session_id, None)

    async def end_sessions(self, sessions: Sequence[tuple[UUID, str]], now: datetime) -> set[UUID]:
        ended = set()
        for session_id, _ in sessions:
            row = self._tables.sessions.get(session_id)
            if row is not None and row.ended_at is None:
                row.ended_at = now
                ended.add(session_id)
        return ended

    async def open_sessions_of(self, user_ids: Sequence[UUID], *, expiring_after: datetime) -> list[UUID]:
        return [
            session_id
            for session_id, row in self._tables.sessions.items()
            if row.session.user_id in user_ids and row.ended_at is None and row.session.expires_at > expiring_after
        ]

    async def revoke(self, revocations: Sequence[Revocation], now: datetime) -> int:
        self._tables.number += 1
        for revocation in revocations:
            known = self._tables.revoked.get(revocation.id, revocation.ends_at)
            self._tables.revoked[revocation.id] = max(known, revocation.ends_at)
        return self._tables.number

    async def append_events(self, events: Sequence[Event]) -> None:
        self._tables.events.extend(events)


class FakeGatewayStore:
    """The gateway's database in memory: one transaction at a time, all or nothing. `failure` is raised by every read
    and write while it is set."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()
        self.failure: PayflowError | None = None

    @property
    def events(self) -> list[Event]:
        """What was appended and committed."""
        return self._tables.events

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeGatewayTransaction]:
        self._check()
        async with self._lock:
            working = copy.deepcopy(self._tables)
            yield FakeGatewayTransaction(working)
            self._tables = working

    async def has_users(self) -> bool:
        self._check()
        return bool(self._tables.users)

    async def users(self, usernames: Sequence[str]) -> dict[str, User]:
        self._check()
        return {name: self._tables.users[name] for name in usernames if name in self._tables.users}

    async def users_page(self, *, after: str | None, limit: int) -> list[User]:
        self._check()
        names = sorted(name for name in self._tables.users if after is None or name > name_key(after))
        return [self._tables.users[name] for name in names[:limit]]

    async def revoked_among(self, ids: Sequence[str]) -> set[str]:
        self._check()
        return {id_ for id_ in ids if id_ in self._tables.revoked}

    async def revocations(self, now: datetime) -> KnownRevocations:
        self._check()
        ends = {id_: end for id_, end in self._tables.revoked.items() if end > now}
        return KnownRevocations(number=self._tables.number, ends=ends)

    async def revocation_number(self) -> int:
        self._check()
        return self._tables.number

    async def forget(self, *, revoked_before: datetime, expired_before: datetime) -> None:
        self._check()
        tables = self._tables
        tables.revoked = {id_: end for id_, end in tables.revoked.items() if end >= revoked_before}
        gone = {id_ for id_, row in tables.sessions.items() if row.session.expires_at < expired_before}
        tables.sessions = {id_: row for id_, row in tables.sessions.items() if id_ not in gone}
        tables.tokens = {digest: row for digest, row in tables.tokens.items() if row[0] not in gone}
