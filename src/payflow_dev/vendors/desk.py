"""What all stand-ins have in common: how they behave at the moment, and what they were handed."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec


class Mood(StrEnum):
    """How a vendor is today. CUT takes the message and hangs up without a word; SILENT takes and says nothing."""

    FINE = "fine"
    BUSY = "busy"
    OUT = "out"
    LOCKED = "locked"
    GARBAGE = "garbage"
    CUT = "cut"
    SILENT = "silent"


class Control(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """`calls`: for so many calls, then fine again; None until told otherwise. `delay_s`: before each answer.

    `retry_after_s`: what BUSY and OUT ask for, where the vendor has a way to. `receipts`: whether it calls back.
    """

    mood: Mood = Mood.FINE
    calls: int | None = None
    delay_s: float = 0.0
    retry_after_s: int | None = None
    receipts: bool = True


class Taken(msgspec.Struct, kw_only=True):
    """A message that was taken. `reference`: the vendor's id of it. `fields`: what else was sent with it."""

    recipient: str
    subject: str
    text: str
    reference: str
    taken_at: datetime
    fields: dict[str, Any]


class Desk:
    """A vendor's front desk."""

    def __init__(self) -> None:
        self.control = Control()
        self.taken: list[Taken] = []
        self.calls = 0

    @property
    def present(self) -> Mood:
        """The mood of the next call."""
        return Mood.FINE if self.control.calls == 0 else self.control.mood

    def mood(self) -> Mood:
        """The mood of this call, which counts."""
        self.calls += 1
        mood = self.present
        if self.control.calls:
            self.control = msgspec.structs.replace(self.control, calls=self.control.calls - 1)
        return mood

    def be(
        self, mood: Mood, *, calls: int | None = None, delay_s: float = 0.0, retry_after_s: int | None = None
    ) -> None:
        """Be in a mood from now on, or for so many calls."""
        self.control = msgspec.structs.replace(
            self.control, mood=mood, calls=calls, delay_s=delay_s, retry_after_s=retry_after_s
        )

    def take(self, *, recipient: str, text: str, reference: str, subject: str = "", **fields: Any) -> Taken:
        """Note a message that was taken."""
        taken = Taken(
            recipient=recipient,
            subject=subject,
            text=text,
            reference=reference,
            taken_at=datetime.now(UTC),
            fields=fields,
        )
        self.taken.append(taken)
        return taken
