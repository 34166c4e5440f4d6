"""Which log lines are about one payment, over all services: by its ids, by its trace, and by the batches it was in."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

# How many lines that said nothing yet are looked at again when more is known: a call's line comes after those of the
# calls that were made for it.
LOOKED_AT_AGAIN_MAX: Final = 5000
_OWN_IDS: Final = ("payflow.payment_id", "payflow.transaction_id", "trace.id")


class Told(NamedTuple):
    """A line of the payment's: when it was written, by which process, and the line."""

    at: str
    process: str
    line: str


class PaymentLines:
    """Picks a payment's lines out of everybody's. `id`: its payment id, its transaction id, or its trace id.

    What a line about this payment alone names (payment id, transaction id, trace) is looked for from then on. A line
    about a batch with the payment in it names the batch's trace: what was written in that trace is about the payment,
    too, unless it is about others.
    """

    def __init__(self, id: str) -> None:
        self._ids = {id}
        self._batches: set[str] = set()
        self._undecided: deque[str] = deque(maxlen=LOOKED_AT_AGAIN_MAX)

    @property
    def known(self) -> int:
        """How many ids and batches are looked for. When it has grown, earlier lines are worth another look."""
        return len(self._ids) + len(self._batches)

    def start_over(self) -> None:
        """All lines come again."""
        self._undecided.clear()

    def take(self, lines: Iterable[str]) -> list[Told]:
        """Those of these lines, and of earlier undecided ones, that are the payment's; by the time of their writing."""
        taken: list[Told] = []
        waiting: Iterable[str] = lines
        while True:
            known = self.known
            undecided = [line for line in waiting if not self._takes(line, taken)]
            if waiting is self._undecided:
                self._undecided.clear()
            self._undecided.extend(undecided)
            if self.known == known:
                return sorted(taken)
            waiting = self._undecided

    def _takes(self, line: str, taken: list[Told]) -> bool:
        if not any(id in line for id in self._ids) and not any(id in line for id in self._batches):
            return False
        try:
            told = json.loads(line)
        except ValueError:
            return False
        if not isinstance(told, dict) or not self._is_about_it(told):
            return False
        process = told.get("service.node.name") or told.get("service.name") or ""
        taken.append(Told(str(told.get("@timestamp", "")), str(process), line))
        return True

    def _is_about_it(self, told: dict[str, Any]) -> bool:
        own = {str(told[name]) for name in _OWN_IDS if told.get(name)}
        members = told.get("payflow.payment_ids")
        if members:
            is_in = not self._ids.isdisjoint(members)
            if is_in and told.get("trace.id"):
                self._batches.add(str(told["trace.id"]))
            return is_in
        is_its_own = not self._ids.isdisjoint(own)
        if "payflow.payment_id" in told or "payflow.transaction_id" in told:
            if is_its_own:
                self._ids |= own
            return is_its_own
        return is_its_own or not self._batches.isdisjoint(own)
