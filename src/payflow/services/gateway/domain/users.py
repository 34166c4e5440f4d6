"""Users: who may sign in, as what."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from payflow.contracts.gateway import NewUser, Role, UserView
from payflow.kernel.errors import Rejection

PASSWORD_LENGTH_MIN: Final = 8
PASSWORD_LENGTH_MAX: Final = 256
# What a hash may ask of the process that verifies it: an imported one must not be able to stop it.
MEMORY_KIB_MAX: Final = 262_144
PASSES_MAX: Final = 16
LANES_MAX: Final = 16

_USERNAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")
_PHC: Final = re.compile(
    r"\$argon2id\$v=19\$m=(?P<memory>[1-9][0-9]{0,6}),t=(?P<passes>[1-9][0-9]?),p=(?P<lanes>[1-9][0-9]?)"
    r"\$(?P<salt>[A-Za-z0-9+/]{11,86})\$(?P<hash>[A-Za-z0-9+/]{22,171})"
)


class InvalidValue(Rejection):
    """A value was read and is not allowed."""

    code = "VALIDATION_FAILED"


class InvalidUser(InvalidValue):
    """A user's name, password or role is not allowed; the detail says which and why."""


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A person or program that may sign in. Names are told apart without regard to case."""

    user_id: UUID
    username: str
    role: Role
    customer_id: str | None
    password_hash: str
    is_enabled: bool
    created_at: datetime

    def view(self) -> UserView:
        """The user without the secret."""
        return UserView(
            username=self.username,
            role=self.role,
            customer_id=self.customer_id,
            is_enabled=self.is_enabled,
            created_at=self.created_at,
        )


def name_key(username: str) -> str:
    """What two spellings of one name have in common. Names are ASCII, so this is PostgreSQL's lower() too."""
    return username.lower()


def is_username(text: str) -> bool:
    """Whether a name can be a user's at all: 1-64 of letters, digits and . _ @ + -, a letter or digit first."""
    return _USERNAME.fullmatch(text) is not None


def is_acceptable_hash(text: str) -> bool:
    """Whether a text is an argon2id PHC string (version 19) of bounded cost: at most 256 MiB, 16 passes, 16 lanes."""
    match = _PHC.fullmatch(text)
    if match is None:
        return False
    memory, passes, lanes = (int(match[name]) for name in ("memory", "passes", "lanes"))
    return 8 * lanes <= memory <= MEMORY_KIB_MAX and passes <= PASSES_MAX and lanes <= LANES_MAX


def check_new_user(command: NewUser) -> InvalidUser | None:
    """Why a user cannot be made, or None."""
    if not is_username(command.username):
        return InvalidUser("A user name is 1 to 64 letters, digits and . _ @ + -, a letter or digit first.")
    if command.customer_id == "" or (command.role is Role.CUSTOMER and command.customer_id is None):
        return InvalidUser("A user of role customer has a customer_id; others have one where they are customers too.")
    if (command.password is None) == (command.password_hash is None):
        return InvalidUser("Give either password or password_hash.")
    if command.password is not None:
        return check_password(command.password)
    if not is_acceptable_hash(command.password_hash or ""):
        return InvalidUser("password_hash is not an argon2id PHC string ($argon2id$v=19$m=...,t=...,p=...$...$...).")
    return None


def check_password(password: str) -> InvalidUser | None:
    """Why a password is not allowed, or None: a length is asked for, not kinds of characters (NIST SP 800-63B)."""
    if not PASSWORD_LENGTH_MIN <= len(password) <= PASSWORD_LENGTH_MAX:
        return InvalidUser(f"A password has {PASSWORD_LENGTH_MIN} to {PASSWORD_LENGTH_MAX} characters.")
    return None
