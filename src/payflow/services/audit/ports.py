"""What the audit service needs from outside."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol
from uuid import UUID

from payflow.contracts.audit import SearchAudit
from payflow.services.audit.domain import ChainEnd, Head, HeadRead, Receipt, Record


class Chain(Protocol):
    """The chain inside the transaction that handles a batch of events."""

    async def lock_end(self) -> ChainEnd:
        """The chain's end, locked until the end of the transaction: there is one writer."""
        ...

    async def known(self, event_ids: Sequence[UUID]) -> set[UUID]:
        """Which of these events have a row already."""
        ...

    async def append(self, records: Sequence[Record]) -> None:
        """Write the rows that follow the end, and make the last of them the end."""
        ...


class Snapshot(Protocol):
    """The table as it stood at one instant."""

    async def end(self) -> ChainEnd:
        """The chain's end as it was written down beside the table."""
        ...

    async def records_after(self, sequence: int, *, limit: int) -> list[Record]:
        """The next rows in order, whatever sequences they have."""
        ...


class Store(Protocol):
    """The audit service's database."""

    def snapshot(self) -> AbstractAsyncContextManager[Snapshot]:
        """A consistent view of all rows."""
        ...

    async def end(self) -> ChainEnd:
        """The chain's end as it was written down beside the table."""
        ...

    async def receipt(self) -> Receipt:
        """The newest head that was reported by `save_receipt`."""
        ...

    async def save_receipt(self, receipt: Receipt) -> None:
        """Remember the newest head; an older one than the known changes nothing."""
        ...

    async def events_set_aside(self) -> int:
        """How many events of the log some consumer has set aside."""
        ...

    async def search(self, query: SearchAudit, *, limit: int) -> list[Record]:
        """At most `limit` rows after the cursor, in the query's order.

        A `subject` finds rows about it, and rows whose data names it as payment or customer.
        """
        ...


class Heads(Protocol):
    """Signed heads, kept outside the database."""

    async def append(self, make: Callable[[Head | None], Head | None]) -> Head | None:
        """Sign and store durably what `make(last head)` gives; returns the last head there is then.

        One caller at a time, over all processes. Errors raised by `make` pass through.
        """
        ...

    def pages(self) -> AsyncGenerator[list[HeadRead], None]:
        """The heads that are there when the first page is asked for, in their order, with their signatures checked."""
        ...
