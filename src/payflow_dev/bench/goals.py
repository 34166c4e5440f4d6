"""What a further mode of the bench was to show, and whether it did."""

from __future__ import annotations

import msgspec


class Goal(msgspec.Struct, frozen=True, kw_only=True):
    """One goal in words, what was measured, and whether that is enough."""

    name: str
    wanted: str
    measured: str
    is_met: bool
