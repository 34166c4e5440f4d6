"""The kyc service's database in memory; it passes the same suite as the real one."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from uuid import UUID

from payflow.kernel.envelope import Event
from payflow.platform.postgres import ConcurrencyConflict
from payflow.services.kyc.domain import Change, Verification


class _Tables:
    def __init__(self) -> None:
        self.current: dict[str, Verification] = {}
        self.changes: dict[UUID, Change] = {}
        self.events: list[Event] = []


class FakeRecords:
    """One transaction over the in-memory tables."""

    def __init__(self, tables: _Tables) -> None:
        self._tables = tables

    async def lock(self, customer_ids: Sequence[str]) -> None:
        """Nothing to do: the store runs one transaction at a time."""

    async def current(self, customer_ids: Sequence[str]) -> dict[str, Verification]:
        return {id: self._tables.current[id] for id in customer_ids if id in self._tables.current}

    async def recorded(self, command_ids: Sequence[UUID]) -> dict[UUID, Change]:
        return {id: self._tables.changes[id] for id in command_ids if id in self._tables.changes}

    async def save(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.command_id in self._tables.changes:
                raise ConcurrencyConflict("A command id was used for another customer meanwhile.")
            self._tables.changes[change.command_id] = change
            self._tables.current[change.verification.customer_id] = change.verification

    async def append_events(self, events: Sequence[Event]) -> None:
        self._tables.events.extend(events)


class FakeKycStore:
    """Records in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self._tables = _Tables()
        self._lock = asyncio.Lock()

    @property
    def events(self) -> list[Event]:
        """What was appended and committed."""
        return self._tables.events

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeRecords]:
        async with self._lock:
            working = copy.deepcopy(self._tables)
            yield FakeRecords(working)
            self._tables = working

    async def current(self, customer_ids: Sequence[str]) -> dict[str, Verification]:
        return await FakeRecords(self._tables).current(customer_ids)

    async def changes(self, customer_ids: Sequence[str]) -> dict[str, list[Change]]:
        wanted: dict[str, list[Change]] = {}
        for change in self._tables.changes.values():
            if change.verification.customer_id in customer_ids:
                wanted.setdefault(change.verification.customer_id, []).insert(0, change)
        return wanted
