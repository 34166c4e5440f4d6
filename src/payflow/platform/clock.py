"""The machine's clock behind the kernel's Clock."""

from __future__ import annotations

from datetime import UTC, datetime


class SystemClock:
    """The present instant of this machine."""

    def now(self) -> datetime:
        """The present instant, timezone-aware UTC."""
        return datetime.now(UTC)
