"""Sessions: a sign-in and the refresh tokens that keep it open, each good for one use."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from uuid import UUID

import msgspec

from payflow.contracts.gateway import Role
from payflow.services.gateway.domain.users import User

# An access token may be presented this long after its end on a gateway whose clock is behind.
CLOCK_LEEWAY = timedelta(seconds=30)


class Lifetimes(msgspec.Struct, frozen=True, kw_only=True):
    """How long an access token lives, and how long a session can be renewed after its sign-in."""

    access: timedelta
    session: timedelta


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who sent a request, as a verified access token says. `ends_at` in seconds since 1970.

    Only a user of role customer acts for `customer_id`; it says what one of the bank's own people may not decide about.
    """

    username: str
    role: Role
    customer_id: str | None
    token_id: str
    session_id: str
    ends_at: float


class NewSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session to open, with the digest of its first refresh token."""

    session_id: UUID
    user_id: UUID
    opened_at: datetime
    expires_at: datetime
    token_sha256: bytes


class RefreshToken(msgspec.Struct, frozen=True, kw_only=True):
    """A refresh token as it is stored, with its session and its user."""

    token_sha256: bytes
    session_id: UUID
    used_at: datetime | None
    session_expires_at: datetime
    session_ended_at: datetime | None
    user: User


class Revocation(msgspec.Struct, frozen=True, kw_only=True):
    """Access tokens that are no longer to be believed: one by its jti, or all of a session by its id.

    `ends_at`: when the last of them has ended by itself and the record may be forgotten.
    """

    id: str
    ends_at: datetime
    reason: str


class RefreshDecision(StrEnum):
    """What a presented refresh token deserves."""

    ROTATE = "ROTATE"
    UNKNOWN = "UNKNOWN"
    EXPIRED = "EXPIRED"
    ENDED = "ENDED"
    REUSED = "REUSED"
    DISABLED = "DISABLED"


def digest(secret: str) -> bytes:
    """What is stored of a refresh token. It has 256 random bits, so a plain hash cannot be searched."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def decide_refresh(*, token: RefreshToken | None, now: datetime) -> RefreshDecision:
    """Decide about a presented refresh token.

    A used one in an open session means that two hold it, and nobody can tell which is the thief: the session ends.
    """
    if token is None:
        return RefreshDecision.UNKNOWN
    if token.session_ended_at is not None:
        return RefreshDecision.ENDED
    if token.used_at is not None:
        return RefreshDecision.REUSED
    if now >= token.session_expires_at:
        return RefreshDecision.EXPIRED
    if not token.user.is_enabled:
        return RefreshDecision.DISABLED
    return RefreshDecision.ROTATE


def sessions_with_tokens_expire_after(*, lifetimes: Lifetimes, now: datetime) -> datetime:
    """A session that expired before this instant has no access token left that anybody believes.

    Tokens end with their session, but one made under other settings, or by a clock that was ahead, may not.
    """
    return now - lifetimes.access - CLOCK_LEEWAY


def revocation_of_session(*, session_id: UUID, reason: str, lifetimes: Lifetimes, now: datetime) -> Revocation:
    """All access tokens of a session: the youngest was made just now at the latest."""
    return Revocation(id=session_id.hex, ends_at=now + lifetimes.access + CLOCK_LEEWAY, reason=reason)
