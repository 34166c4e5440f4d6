"""The gateway service's inside: users and their sessions, as the command line and the demo need them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import ClassVar, Final, Protocol

import msgspec

from payflow.contracts.operation import Answers, operation
from payflow.kernel.errors import Rejection, Unavailable

# Everybody may know these: development makes the users at its first start, and production refuses them.
DEMO_USERNAMES: Final = ("demo", "second", "unverified", "listed")
DEMO_PASSWORD: Final = "password123"  # noqa: S105


class Role(StrEnum):
    CUSTOMER = "customer"
    OPERATOR = "operator"
    COMPLIANCE = "compliance"
    AUDITOR = "auditor"
    ADMIN = "admin"


class InvalidCredentials(Rejection):
    """User name or password is wrong."""

    code = "INVALID_CREDENTIALS"


class AccessTokenRequired(Rejection):
    """No bearer token was given."""

    code = "ACCESS_TOKEN_REQUIRED"


class InvalidToken(Rejection):
    """The token is malformed, expired, for another audience, or its signature is wrong."""

    code = "INVALID_TOKEN"


class TokenRevoked(Rejection):
    """The token, its session, or its whole family was revoked."""

    code = "TOKEN_REVOKED"


class Forbidden(Rejection):
    """The user's role, or the object's owner, does not allow this."""

    code = "FORBIDDEN"


class RateLimited(Unavailable):
    """Too many requests; `retry_after_s` says when the next is allowed."""

    code = "RATE_LIMITED"


class MissingIdempotencyKey(Rejection):
    """The Idempotency-Key header is missing."""

    code = "MISSING_IDEMPOTENCY_KEY"


class InvalidIdempotencyKey(Rejection):
    """The Idempotency-Key header is not 1-255 printable ASCII characters."""

    code = "INVALID_IDEMPOTENCY_KEY"


class UserExists(Rejection):
    """The user name is taken."""

    code = "USER_EXISTS"


class UserNotFound(Rejection):
    """No such user."""

    code = "USER_NOT_FOUND"


class NewUser(msgspec.Struct, frozen=True, kw_only=True):
    """Either `password` or `password_hash` (an argon2id PHC string, for bulk imports) is given.

    `customer_id` is required for role customer. Another role has it where that person is a customer too: it gives no
    right, and keeps them from deciding about their own payments.
    """

    username: str
    role: Role
    password: str | None = None
    password_hash: str | None = None
    customer_id: str | None = None


class UserView(msgspec.Struct, frozen=True, kw_only=True):
    username: str
    role: Role
    customer_id: str | None
    is_enabled: bool
    created_at: datetime


class RotateKeys(msgspec.Struct, frozen=True, kw_only=True):
    """Make a new signing key and sign with it from now on; the old one verifies until its tokens have ended."""


class KeysRotated(msgspec.Struct, frozen=True, kw_only=True):
    active_kid: str
    verifying_kids: list[str]


class Gateway(Protocol):
    """Operations of the gateway service's private side."""

    service: ClassVar[str] = "gateway"

    # Passwords are hashed one after another, and a body on the public process is at most 64 KB.
    @operation(callers={"cli"}, timeout_s=60, batch_max=100)
    async def create_users(self, commands: list[NewUser]) -> Answers[UserView]: ...

    @operation(callers={"cli"}, repeatable=False)
    async def rotate_keys(self, commands: list[RotateKeys]) -> Answers[KeysRotated]: ...
