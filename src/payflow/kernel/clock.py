"""Time and identity as things that are handed in, so that rules stay pure and tests own both."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol
from uuid import UUID


class Clock(Protocol):
    """Tells the present instant."""

    def now(self) -> datetime:
        """The present instant, timezone-aware UTC."""
        ...


class Ids(Protocol):
    """Makes identifiers that nobody made before."""

    def new(self) -> UUID:
        """A fresh UUIDv7: sorts by the time of its making (RFC 9562)."""
        ...
