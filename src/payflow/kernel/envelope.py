"""The envelope of every event: CloudEvents 1.0 attribute names, plus the payment's own version for ordering."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A fact that happened. `data` is the builtins form of the event's Struct in `contracts`.

    `id` is unique and the same in every delivery; `subject` is what the fact is about (a payment id, a customer id);
    `version` rises by one with each event of one subject, so that a consumer can tell old from new.
    """

    id: UUID
    source: str
    type: str
    subject: str
    version: int
    time: datetime
    data: dict[str, Any]
    traceparent: str = ""
