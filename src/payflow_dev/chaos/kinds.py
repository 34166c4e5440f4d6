"""The kinds of things that are asked in a run, and how often each was asked, done, refused, or nobody knows."""

from __future__ import annotations

from typing import Final

import msgspec

from payflow_dev.chaos.history import Call, FileCall, IncomingCall, OfficeCall

# What every run promises: each is asked for at least once, and at least once it is acknowledged.
KINDS: Final = (
    "payment",
    "payment abroad",
    "payment with code",
    "payment for later",
    "payment reviewed",
    "payment reviewed abroad",
    "cancel",
    "file",
    "return",
    "approve return",
    "decline return",
    "clear review",
    "block review",
    "incoming",
)


class Tally(msgspec.Struct, kw_only=True):
    """How often a kind was invoked; acknowledged (2xx, a payment: SUCCESS), refused (4xx), unknown (5xx, silence).

    What is told to be on its way counts as invoked only.
    """

    invoked: int = 0
    acknowledged: int = 0
    refused: int = 0
    unknown: int = 0


class Tallies:
    """Counts calls by kind. `ours`: the accounts of our own ledger."""

    def __init__(self) -> None:
        self.by_kind: dict[str, Tally] = {}
        self.ours: set[str] = set()

    def count(self, call: Call | OfficeCall | FileCall | IncomingCall) -> None:
        """Count one call."""
        tally = self.by_kind.setdefault(self._kind_of(call), Tally())
        tally.invoked += 1
        if isinstance(call, IncomingCall):
            tally.acknowledged += call.told == "ACCEPTED"
            tally.refused += call.told == "REJECTED"
            tally.unknown += call.told is None
        elif call.status is None or call.status >= 500:
            tally.unknown += 1
        elif call.status >= 400:
            tally.refused += 1
        elif not isinstance(call, Call) or call.operation == "cancel" or '"status":"SUCCESS"' in (call.body or ""):
            tally.acknowledged += 1

    def never_acknowledged(self, kinds: list[str]) -> list[str]:
        """The kinds of which not one was acknowledged."""
        return [kind for kind in kinds if kind not in self.by_kind or not self.by_kind[kind].acknowledged]

    def _kind_of(self, call: Call | OfficeCall | FileCall | IncomingCall) -> str:
        if isinstance(call, IncomingCall):
            return "incoming"
        if isinstance(call, FileCall):
            return "file"
        if isinstance(call, OfficeCall):
            return call.operation.replace("_", " ")
        if call.operation == "cancel":
            return "cancel"
        if call.operation == "pay_with_code":
            return "payment with code"
        if call.execute_at is not None:
            return "payment for later"
        words = "payment reviewed" if call.is_listed else "payment"
        return words if call.creditor in self.ours else f"{words} abroad"
