"""Hears how payments ended, and takes the refused ones, and returns, out of the velocity count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from payflow.kernel.envelope import Event
from payflow.platform.postgres import Connection
from payflow.services.risk import usecases
from payflow.services.risk.ports import Corrections

TOPICS: Final = ["payments", "returns"]


class OutcomeHandler:
    """Applies payment events in the consumer's transaction (see platform.eventlog.EventHandler)."""

    def __init__(self, corrections_on: Callable[[Connection], Corrections]) -> None:
        self._corrections_on = corrections_on

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await usecases.take_out_refused(events=events, corrections=self._corrections_on(connection))
