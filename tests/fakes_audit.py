"""The audit service's ports in memory, and events for it. Each fake passes the same suite as the real adapter."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from payflow.contracts.audit import SearchAudit
from payflow.kernel.envelope import Event
from payflow.services.audit.domain import ChainEnd, Head, HeadRead, Receipt, Record
from tests.builders import NOON, new_id


def an_event(
    *,
    id: UUID | None = None,
    type: str = "payment.completed",
    subject: str | None = None,
    version: int = 1,
    time: datetime = NOON,
    data: dict[str, Any] | None = None,
    source: str = "confirm",
    traceparent: str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
) -> Event:
    """An event as a consumer gets it."""
    return Event(
        id=id or new_id(),
        source=source,
        type=type,
        subject=subject or str(new_id()),
        version=version,
        time=time,
        data={"state": "COMPLETED"} if data is None else data,
        traceparent=traceparent,
    )


class FakeAuditStore:
    """The chain's tables in memory: one transaction at a time, all or nothing."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.chain_end = ChainEnd()
        self.head_receipt = Receipt()
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[FakeChain]:
        async with self._lock:
            chain = FakeChain(self)
            yield chain
            self.records.extend(chain.appended)
            if chain.appended:
                self.chain_end = ChainEnd(chain.appended[-1].sequence, chain.appended[-1].hash)

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[FakeSnapshot]:
        yield FakeSnapshot(list(self.records), self.chain_end)

    async def end(self) -> ChainEnd:
        return self.chain_end

    async def receipt(self) -> Receipt:
        return self.head_receipt

    async def save_receipt(self, receipt: Receipt) -> None:
        if receipt.number > self.head_receipt.number:
            self.head_receipt = receipt

    async def events_set_aside(self) -> int:
        return 0

    async def search(self, query: SearchAudit, *, limit: int) -> list[Record]:
        found = [record for record in self.records if _matches(record, query)]
        if not query.oldest_first:
            found.reverse()
        return found[:limit]


def _matches(record: Record, query: SearchAudit) -> bool:
    data = msgspec.json.decode(record.data)
    is_about = query.subject in (None, record.subject, data.get("payment_id"), data.get("customer_id"))
    is_after = query.cursor is None or (
        record.sequence > query.cursor if query.oldest_first else record.sequence < query.cursor
    )
    return is_about and is_after and query.type in (None, record.type)


class FakeChain:
    """The chain inside a transaction."""

    def __init__(self, store: FakeAuditStore) -> None:
        self._store = store
        self.appended: list[Record] = []

    async def lock_end(self) -> ChainEnd:
        return self._store.chain_end

    async def known(self, event_ids: Sequence[UUID]) -> set[UUID]:
        return {record.event_id for record in self._store.records} & set(event_ids)

    async def append(self, records: Sequence[Record]) -> None:
        self.appended.extend(records)


class FakeSnapshot:
    """The rows at one instant."""

    def __init__(self, records: list[Record], end: ChainEnd) -> None:
        self._records = sorted(records, key=lambda record: record.sequence)
        self._end = end

    async def end(self) -> ChainEnd:
        return self._end

    async def records_after(self, sequence: int, *, limit: int) -> list[Record]:
        return [record for record in self._records if record.sequence > sequence][:limit]


class FakeHeads:
    """Heads in a list; a signature is the reversed digest of what it covers."""

    def __init__(self) -> None:
        self.heads: list[Head] = []

    async def append(self, make: Callable[[Head | None], Head | None]) -> Head | None:
        last = self.heads[-1] if self.heads else None
        head = make(last)
        if head is None:
            return last
        self.heads.append(msgspec.structs.replace(head, signature=_signature(head)))
        return self.heads[-1]

    async def pages(self) -> AsyncGenerator[list[HeadRead], None]:
        for line, head in enumerate(list(self.heads), start=1):
            yield [HeadRead(line, head, head.signature == _signature(head))]


def _signature(head: Head) -> str:
    return msgspec.structs.replace(head, signature="").digest()[::-1]
