"""Hears every event of the system and records each one in the chain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from payflow.contracts.topics import TOPICS
from payflow.kernel.clock import Clock
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError, Unavailable
from payflow.platform.postgres import Connection
from payflow.services.audit.store import PostgresChain
from payflow.services.audit.usecases import record_events

EVERY_TOPIC: Final = [topic.name for topic in TOPICS]


class Recorder:
    """An event handler (see platform.eventlog.EventHandler) that never lets an event go by.

    Whatever goes wrong is raised as something to wait out: a record with holes would be worth less than a late one.
    """

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        try:
            await record_events(events=events, chain=PostgresChain(connection), now=self._clock.now())
        except PayflowError:
            raise
        except Exception as error:
            raise Unavailable(f"Events cannot be recorded: {error!r}") from error
