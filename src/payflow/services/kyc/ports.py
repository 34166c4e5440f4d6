"""What the kyc service needs from outside."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from payflow.kernel.envelope import Event
from payflow.services.kyc.domain import Change, Verification


class RecordTransaction(Protocol):
    """One database transaction that writes records."""

    async def lock(self, customer_ids: Sequence[str]) -> None:
        """Keep other records of these customers waiting until the end of the transaction; one order everywhere."""
        ...

    async def current(self, customer_ids: Sequence[str]) -> dict[str, Verification]:
        """Where the customers stand; customers without a record are left out."""
        ...

    async def recorded(self, command_ids: Sequence[UUID]) -> dict[UUID, Change]:
        """What earlier commands with these ids wrote."""
        ...

    async def save(self, changes: Sequence[Change]) -> None:
        """Write the changes, oldest first, and where the customers stand after them.

        Raises Unavailable when a command id was used for another customer meanwhile: nothing is written, and the batch
        can be repeated at once.
        """
        ...

    async def append_events(self, events: Sequence[Event]) -> None:
        """Store events in this transaction; consumers are woken after the commit."""
        ...


class Store(Protocol):
    """The kyc service's database."""

    def transaction(self) -> AbstractAsyncContextManager[RecordTransaction]:
        """One database transaction; commits at the end of the block, rolls back when it raises."""
        ...

    async def current(self, customer_ids: Sequence[str]) -> dict[str, Verification]:
        """Where the customers stand, in one read; customers without a record are left out."""
        ...

    async def changes(self, customer_ids: Sequence[str]) -> dict[str, list[Change]]:
        """Every change of each customer, newest first; customers without a record are left out."""
        ...
