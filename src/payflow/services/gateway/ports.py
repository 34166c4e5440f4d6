"""What the gateway's use cases need of the world."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol, TypeAlias
from uuid import UUID

import msgspec

from payflow.kernel.envelope import Event
from payflow.services.gateway.domain.sessions import Identity, NewSession, RefreshToken, Revocation
from payflow.services.gateway.domain.users import User

# A fresh secret of at least 256 random bits, as text that fits a URL.
NewSecret: TypeAlias = Callable[[], str]


class KnownRevocations(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is revoked at present: id -> end. Complete up to the revocation of this number."""

    number: int
    ends: dict[str, datetime]


class Transaction(Protocol):
    """One database transaction over users and sessions."""

    async def insert_users(self, users: Sequence[User]) -> set[UUID]:
        """Store new users; returns the ids of those whose names were free."""
        ...

    async def set_enabled(self, user_ids: Sequence[UUID], *, is_enabled: bool) -> dict[UUID, int]:
        """Open or close users to sign-in; returns the new version of each that changed."""
        ...

    async def open_sessions(self, sessions: Sequence[NewSession]) -> set[UUID]:
        """Store new sessions with their first refresh tokens, unless the user was disabled; returns those stored."""
        ...

    async def lock_refresh_tokens(self, digests: Sequence[bytes]) -> dict[bytes, RefreshToken]:
        """Refresh tokens by digest, their sessions locked until the end of the transaction."""
        ...

    async def rotate(self, *, used: Sequence[bytes], fresh: Sequence[tuple[bytes, UUID]], now: datetime) -> None:
        """Mark refresh tokens as used and store their successors (digest, session)."""
        ...

    async def end_sessions(self, sessions: Sequence[tuple[UUID, str]], now: datetime) -> set[UUID]:
        """End sessions (id, reason) that are open; returns those that this call ended."""
        ...

    async def open_sessions_of(self, user_ids: Sequence[UUID], *, expiring_after: datetime) -> list[UUID]:
        """The sessions of users that nobody has ended and that expire after an instant."""
        ...

    async def revoke(self, revocations: Sequence[Revocation], now: datetime) -> int:
        """Record revocations; returns their number, which counts without gaps in the order of commits."""
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Tell what happened, when the transaction commits."""
        ...


class Store(Protocol):
    """The gateway's database."""

    def transaction(self) -> AbstractAsyncContextManager[Transaction]:
        """Begin a transaction; it commits at the end of the block unless that raises."""
        ...

    async def has_users(self) -> bool:
        """Whether anybody can sign in yet."""
        ...

    async def users(self, usernames: Sequence[str]) -> dict[str, User]:
        """Users by `name_key`."""
        ...

    async def users_page(self, *, after: str | None, limit: int) -> list[User]:
        """Users in the order of their names."""
        ...

    async def revoked_among(self, ids: Sequence[str]) -> set[str]:
        """Which of these token or session ids are revoked: the truth."""
        ...

    async def revocations(self, now: datetime) -> KnownRevocations:
        """All revocations that have not ended, in one snapshot."""
        ...

    async def revocation_number(self) -> int:
        """How many revocations there have been."""
        ...

    async def forget(self, *, revoked_before: datetime, expired_before: datetime) -> None:
        """Remove what no longer decides anything."""
        ...


class Passwords(Protocol):
    """Hashes and verifies passwords, slowly on purpose and off the event loop."""

    async def hash(self, password: str) -> str:
        """An argon2id PHC string. Raises Overloaded when too many wait."""
        ...

    async def verify(self, *, password: str, password_hash: str | None) -> bool:
        """Whether the password fits. None stands for a user who does not exist: False, after as much work.

        Raises Overloaded when too many wait.
        """
        ...


class AccessTokens(Protocol):
    """Signs and verifies access tokens."""

    def sign(self, identity: Identity, *, issued_at: float) -> str:
        """A signed token that says this. Instants in seconds since 1970."""
        ...


class Revocations(Protocol):
    """Makes revocations known to every gateway at once."""

    async def publish(self, revocations: Sequence[Revocation], *, number: int) -> None:
        """Returns when no gateway believes these any more; `number` is the store's for them. Does not raise: the
        store is the truth, and a gateway that cannot be told looks there."""
        ...


class KeyRing(Protocol):
    """The keys that access tokens are signed with, shared by all gateways."""

    def rotate(self, now: datetime) -> tuple[str, list[str]]:
        """Make a new signing key and sign with it; returns its kid and all kids that verify. Raises Unavailable."""
        ...
