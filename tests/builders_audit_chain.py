"""Chains of audit rows with their signed heads, and what verification says of them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from payflow.services.audit.domain import (
    NO_HASH,
    ChainEnd,
    Head,
    HeadRead,
    Receipt,
    Record,
    Verification,
    chain_events,
    hash_of,
    next_head,
    receipt_of,
)
from tests.builders import NOON
from tests.fakes_audit import an_event


def a_chain(length: int = 6, *, recorded_at: datetime = NOON) -> list[Record]:
    events = [an_event(subject=f"payment-{n}", version=n) for n in range(1, length + 1)]
    return chain_events(events=events, known=(), end=ChainEnd(), recorded_at=recorded_at)


def heads_of(records: Sequence[Record], *sequences: int) -> list[Head]:
    """A signed head for each of these rows."""
    heads: list[Head] = []
    receipt = Receipt()
    for sequence in sequences:
        record = records[sequence - 1]
        end = ChainEnd(record.sequence, record.hash)
        head = next_head(end=end, last=heads[-1] if heads else None, receipt=receipt, now=NOON)
        assert head is not None
        heads.append(head)
        receipt = receipt_of(head)
    return heads


def problems_of(
    records: Sequence[Record],
    heads: Sequence[Head],
    *,
    end: ChainEnd,
    receipt: Receipt,
    forged: Sequence[int] = (),
    now: datetime = NOON,
) -> list[str]:
    verification = Verification(before=ChainEnd())
    reads = [HeadRead(line, head, head.number not in forged) for line, head in enumerate(heads, start=1)]
    verification.check_heads(reads)
    verification.check_rows(records)
    return verification.finish(end=end, receipt=receipt, now=now)


def end_of(records: Sequence[Record]) -> ChainEnd:
    return ChainEnd(records[-1].sequence, records[-1].hash)


def rehashed(record: Record, **changes: Any) -> Record:
    """The row with other contents and the hash that belongs to them."""
    changed = msgspec.structs.replace(record, **changes)
    return msgspec.structs.replace(changed, hash=hash_of(changed))


def relinked(records: Sequence[Record], *, start: int) -> list[Record]:
    """All hashes from row `start` on computed anew, as somebody with the code and all rights would."""
    result = list(records)
    for index in range(start - 1, len(result)):
        previous = result[index - 1].hash if index else NO_HASH
        result[index] = rehashed(result[index], previous_hash=previous)
    return result
