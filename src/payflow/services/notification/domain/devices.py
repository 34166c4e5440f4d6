"""The devices that push messages go to: one row per app on a phone, found again by its token's digest."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from typing import Final
from uuid import UUID

# Apps get new tokens and forget the old ones; whoever registers more than this loses the one unseen for the longest.
DEVICES_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Device:
    """A device of a customer's. `token` is the vendor's address of it, as secret as a phone number."""

    device_id: UUID
    customer_id: str
    platform: str
    token: str = field(repr=False)
    registered_at: datetime
    seen_at: datetime

    @property
    def token_digest(self) -> bytes:
        """By which a token is found while it is stored encrypted. Tokens are long and random: no guess meets one."""
        return sha256(self.token.encode()).digest()
