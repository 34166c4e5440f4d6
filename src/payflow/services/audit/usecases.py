"""Recording events in the chain, signing its heads, and proving afterwards that nothing was altered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from datetime import datetime
from typing import Any, Final

import msgspec

from payflow.contracts.audit import AuditPage, AuditRow, AuditVerified, SearchAudit, VerifyAudit
from payflow.contracts.operation import Answers
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Conflict
from payflow.services.audit.domain import (
    NO_HASH,
    ChainEnd,
    Head,
    Record,
    Verification,
    chain_events,
    next_head,
    receipt_of,
)
from payflow.services.audit.ports import Chain, Heads, Snapshot, Store

PAGE_MAX: Final = 200
ROWS_PER_PAGE: Final = 1000
_data_decoder: Final = msgspec.json.Decoder(dict[str, Any])


async def record_events(*, events: Sequence[Event], chain: Chain, now: datetime) -> ChainEnd:
    """Append a row for each event that has none yet; returns the chain's new end.

    Runs in the transaction that moves the consumer's position: an event is recorded once, or not at all.
    """
    end = await chain.lock_end()
    known = await chain.known([event.id for event in events])
    records = chain_events(events=events, known=known, end=end, recorded_at=now)
    if not records:
        return end
    await chain.append(records)
    return ChainEnd(records[-1].sequence, records[-1].hash)


async def sign_head(*, store: Store, heads: Heads, now: datetime) -> Head | None:
    """Sign the chain's end unless that was done; returns the newest head, None where another process is at it.

    Only what is committed is signed. Raises Conflict when rows that were signed are gone.
    """
    end, receipt = await store.end(), await store.receipt()
    try:
        last = await heads.append(lambda last: next_head(end=end, last=last, receipt=receipt, now=now))
    except Conflict:
        if await store.end() == end:
            raise
        return None  # Another process signed rows that are younger than what was read here.
    if last is not None and last.number > receipt.number:
        await store.save_receipt(receipt_of(last))
    return last


async def search(*, queries: Sequence[SearchAudit], store: Store) -> Answers[AuditPage]:
    """A page of rows for each query, newest first unless it asks otherwise; at most PAGE_MAX rows."""
    pages: Answers[AuditPage] = []
    for query in queries:
        limit = min(max(query.limit, 1), PAGE_MAX)
        records = await store.search(query, limit=limit + 1)
        has_more = len(records) > limit
        rows = [_as_row(record) for record in records[:limit]]
        pages.append(AuditPage(rows=rows, next_cursor=rows[-1].sequence if has_more else None))
    return pages


async def verify(
    *, queries: Sequence[VerifyAudit], store: Store, heads: Heads, now: datetime
) -> Answers[AuditVerified]:
    """Recompute the chain from a row on and compare it with every signed head. Reads only; a long chain takes long."""
    return [
        await _verify_chain(from_sequence=query.from_sequence, store=store, heads=heads, now=now) for query in queries
    ]


async def _verify_chain(*, from_sequence: int, store: Store, heads: Heads, now: datetime) -> AuditVerified:
    # In this order, so that nothing that is written meanwhile looks like a loss: a row is committed before its head is
    # in the file, and that before the head's receipt is in the database.
    receipt = await store.receipt()
    async with aclosing(heads.pages()) as pages:
        page = await anext(pages, None)
        async with store.snapshot() as snapshot:
            end = await snapshot.end()
            verification = Verification(before=await _row_before(from_sequence, snapshot=snapshot, end=end))
            sequence = verification.end.sequence
            while records := await snapshot.records_after(sequence, limit=ROWS_PER_PAGE):
                sequence = records[-1].sequence
                while page is not None and verification.wants_heads(up_to=sequence):
                    verification.check_heads(page)
                    page = await anext(pages, None)
                verification.check_rows(records)
        while page is not None:
            verification.check_heads(page)
            page = await anext(pages, None)
    return AuditVerified(
        rows=verification.rows,
        heads=verification.heads,
        last_sequence=verification.end.sequence,
        last_hash=verification.end.hash.hex(),
        problems=verification.finish(end=end, receipt=receipt, now=now),
        events_set_aside=await store.events_set_aside(),
    )


async def _row_before(from_sequence: int, *, snapshot: Snapshot, end: ChainEnd) -> ChainEnd:
    """Where to begin: the stored row before the first one to verify, or a place without a row, which will not fit."""
    sequence = min(max(from_sequence, 1), end.sequence + 1) - 1
    if sequence == 0:
        return ChainEnd()
    records = await snapshot.records_after(sequence - 1, limit=1)
    is_there = bool(records) and records[0].sequence == sequence
    return ChainEnd(sequence, records[0].hash) if is_there else ChainEnd(sequence, NO_HASH)


def _as_row(record: Record) -> AuditRow:
    return AuditRow(
        sequence=record.sequence,
        event_id=str(record.event_id),
        type=record.type,
        source=record.source,
        subject=record.subject,
        version=record.version,
        occurred_at=record.occurred_at,
        recorded_at=record.recorded_at,
        data=_data_decoder.decode(record.data),
        traceparent=record.traceparent,
        previous_hash=record.previous_hash.hex(),
        hash=record.hash.hex(),
    )
