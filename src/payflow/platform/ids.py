"""Identifiers that sort by the time of their making."""

from __future__ import annotations

import os
import time
from uuid import UUID


class UuidV7:
    """UUIDv7 (RFC 9562): 48 bits of milliseconds, then 74 random bits, so that index pages fill in order."""

    def new(self) -> UUID:
        """A fresh UUIDv7."""
        milliseconds = time.time_ns() // 1_000_000
        random_bits = int.from_bytes(os.urandom(10), "big")
        value = milliseconds << 80
        value |= 0x7 << 76
        value |= (random_bits >> 68 & 0xFFF) << 64
        value |= 0b10 << 62
        value |= random_bits & 0x3FFF_FFFF_FFFF_FFFF
        return UUID(int=value)
