"""The chain of audit rows and its signed heads: how both grow, and what proves that neither was altered.

Each row's hash covers its contents and the hash of the row before it, so that no row can be changed, removed or moved
without changing every hash after it. A head is a signed statement "row n has this hash", kept outside the table, so
that whoever may change every row of the table still cannot change what was signed.
"""

from __future__ import annotations

import hashlib
import re
from collections import deque
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from payflow.kernel.envelope import Event
from payflow.kernel.errors import Conflict

NO_HASH: Final = bytes(32)
# Heads are signed every second; rows that stayed without one for so long were cut off from theirs.
UNSIGNED_MAX: Final = timedelta(seconds=60)
PROBLEMS_MAX: Final = 100
WITHHELD: Final = "[withheld]"

_HEAD_PREFIX: Final = b"payflow-audit-head-1\n"
# A row can never be corrected, so what must not be in one is stopped here too: tokens, password hashes, private keys.
_SECRET: Final = re.compile(
    r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|\$argon2(?:id|i|d)\$|-----BEGIN [A-Z ]*PRIVATE KEY"
)
# Texts without any of these need no closer look; looking at each value of each event would double the cost of a row.
_SUSPICIOUS: Final = ("eyJ", "$argon2", "-----BEGIN", "\\u0000")


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the chain. `data` is JSON text exactly as it was hashed; both hashes are 32 bytes."""

    sequence: int
    event_id: UUID
    type: str
    source: str
    subject: str
    version: int
    occurred_at: datetime
    recorded_at: datetime
    data: str
    traceparent: str
    previous_hash: bytes
    hash: bytes


class ChainEnd(msgspec.Struct, frozen=True):
    """The last row's sequence and hash; sequence 0 and NO_HASH while there is no row."""

    sequence: int = 0
    hash: bytes = NO_HASH


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """A signed statement that row `sequence` had this hash. Hashes are hexadecimal, `number` counts the heads from 1.

    `previous` is the digest of the head before it: heads form a chain too, so that none can be taken out of the file.
    """

    number: int
    sequence: int
    hash: str
    signed_at: datetime
    previous: str
    kid: str = ""
    signature: str = ""

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        parts = [self.number, self.sequence, self.hash, _instant(self.signed_at), self.previous, self.kid]
        return _HEAD_PREFIX + msgspec.json.encode(parts)

    def digest(self) -> str:
        """The hexadecimal SHA-256 by which the next head names this one."""
        return hashlib.sha256(self.signed_bytes() + self.signature.encode()).hexdigest()


class Receipt(msgspec.Struct, frozen=True):
    """The newest head as the database knows it, so that heads cut from the end of the file are missed."""

    number: int = 0
    digest: str = NO_HASH.hex()


class HeadRead(msgspec.Struct, frozen=True):
    """A line of the heads file as found: `head` is None where it cannot be read."""

    line: int
    head: Head | None
    is_signature_valid: bool = False


def _instant(instant: datetime) -> str:
    if instant.tzinfo is None:
        instant = instant.replace(tzinfo=UTC)
    return instant.astimezone(UTC).isoformat(timespec="microseconds")


def _without_nul(text: str) -> str:
    return text.replace("\x00", "\ufffd")


def _storable(value: Any) -> Any:
    """A value without secrets and without NUL, which PostgreSQL's text cannot hold."""
    if isinstance(value, str):
        return WITHHELD if _SECRET.search(value) else _without_nul(value)
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_storable(item) for item in value]
    return value


def canonical_data(data: dict[str, Any]) -> str:
    """An event's data as the one JSON text that is stored and hashed: names sorted, no blanks, nothing secret."""
    text = msgspec.json.encode(data, order="deterministic").decode()
    if any(mark in text for mark in _SUSPICIOUS):
        builtins = msgspec.to_builtins(data, str_keys=True)
        text = msgspec.json.encode(_storable(builtins), order="deterministic").decode()
    return text


def hash_of(record: Record) -> bytes:
    """SHA-256 over the previous row's hash and a JSON list of the row's columns, in the order of the table."""
    contents = [
        record.sequence,
        str(record.event_id),
        record.type,
        record.source,
        record.subject,
        record.version,
        _instant(record.occurred_at),
        _instant(record.recorded_at),
        record.data,
        record.traceparent,
    ]
    return hashlib.sha256(record.previous_hash + msgspec.json.encode(contents)).digest()


def chain_events(
    *, events: Sequence[Event], known: Collection[UUID], end: ChainEnd, recorded_at: datetime
) -> list[Record]:
    """The rows that continue the chain after `end`, in the order of the events.

    An event that is `known`, or is there twice, makes no row and leaves no gap.
    """
    seen = set(known)
    records: list[Record] = []
    for event in events:
        if event.id in seen:
            continue
        seen.add(event.id)
        record = _unhashed(event, ChainEnd(end.sequence + 1, end.hash), recorded_at)
        record = msgspec.structs.replace(record, hash=hash_of(record))
        records.append(record)
        end = ChainEnd(record.sequence, record.hash)
    return records


def _unhashed(event: Event, place: ChainEnd, recorded_at: datetime) -> Record:
    occurred_at = event.time if event.time.tzinfo is not None else event.time.replace(tzinfo=UTC)
    return Record(
        sequence=place.sequence,
        event_id=event.id,
        type=_without_nul(event.type),
        source=_without_nul(event.source),
        subject=_without_nul(event.subject),
        version=event.version,
        occurred_at=occurred_at,
        recorded_at=recorded_at,
        data=canonical_data(event.data),
        traceparent=_without_nul(event.traceparent),
        previous_hash=place.hash,
        hash=NO_HASH,
    )


def next_head(*, end: ChainEnd, last: Head | None, receipt: Receipt, now: datetime) -> Head | None:
    """The head to sign next, without its signature; None when the chain's end is signed already.

    Where the file has lost heads that the database knows of, the new head follows the receipt: the hole stays visible.
    Raises Conflict when the chain is shorter than what was signed: rows were cut off, and signing would hide it.
    """
    if last is not None and end.sequence < last.sequence:
        raise Conflict(f"The audit chain ends at row {end.sequence}, but a head of row {last.sequence} was signed.")
    previous = receipt
    if last is not None and last.number > receipt.number:
        previous = receipt_of(last)
    is_signed = last is not None and (last.sequence, last.hash) == (end.sequence, end.hash.hex())
    if end.sequence == 0 or (is_signed and last is not None and receipt_of(last) == previous):
        return None
    return Head(
        number=previous.number + 1,
        sequence=end.sequence,
        hash=end.hash.hex(),
        signed_at=now,
        previous=previous.digest,
    )


def receipt_of(head: Head) -> Receipt:
    """What the database remembers of a head."""
    return Receipt(head.number, head.digest())


class Verification:
    """Compares rows and heads, both fed in order and in pages, and says in words what does not fit.

    Feed the heads that reach a page's last row (`wants_heads`) before the page, then call `finish`.
    """

    def __init__(self, *, before: ChainEnd) -> None:
        self.rows = 0
        self.heads = 0
        self.end = before
        self._first_sequence = before.sequence + 1
        self._last_head: Head | None = None
        self._last_signed = 0
        self._is_link_known = True
        self._pending: deque[Head] = deque()
        self._first_unsigned: Record | None = None
        self._problems: list[str] = []
        self._unsaid = 0

    def wants_heads(self, *, up_to: int) -> bool:
        """Whether heads of rows up to this one may still be missing."""
        return self._last_signed < up_to

    def check_heads(self, reads: Sequence[HeadRead]) -> None:
        """Check signatures and links, and keep what is to be compared with rows."""
        for read in reads:
            self.heads += 1
            head = read.head
            if head is None:
                self._problem(f"line {read.line} of the heads file cannot be read")
                self._is_link_known = False
                continue
            self._check_link(head)
            self._last_head = head
            if not read.is_signature_valid:
                self._problem(f"head {head.number}: its signature is not valid")
            elif head.sequence < self._last_signed:
                self._problem(f"head {head.number} goes back from row {self._last_signed} to row {head.sequence}")
            else:
                self._last_signed = head.sequence
                if head.sequence >= self._first_sequence:
                    self._pending.append(head)

    def _check_link(self, head: Head) -> None:
        last = Receipt() if self._last_head is None else receipt_of(self._last_head)
        if self._is_link_known and head.number > last.number + 1:
            self._problem(f"{_missing('head', last.number + 1, head.number - 1)} from the heads file")
        elif self._is_link_known and (head.number, head.previous) != (last.number + 1, last.digest):
            self._problem(f"head {head.number} does not follow the head before it")
        self._is_link_known = True

    def check_rows(self, records: Sequence[Record]) -> None:
        """Check hashes, links and gaps, and compare with the heads fed so far."""
        for record in records:
            self.rows += 1
            expected = self.end.sequence + 1
            if record.sequence > expected:
                self._problem(_missing("row", expected, record.sequence - 1))
            elif record.previous_hash != self.end.hash:
                self._problem(f"row {record.sequence}: it does not continue row {self.end.sequence}")
            if hash_of(record) != record.hash:
                self._problem(f"row {record.sequence}: its contents do not match its hash")
            self._compare_with_heads(record)
            if self._first_unsigned is None and record.sequence > self._last_signed:
                self._first_unsigned = record
            self.end = ChainEnd(record.sequence, record.hash)

    def _compare_with_heads(self, record: Record) -> None:
        while self._pending and self._pending[0].sequence <= record.sequence:
            head = self._pending.popleft()
            if head.sequence == record.sequence and head.hash != record.hash.hex():
                self._problem(f"row {record.sequence}: head {head.number} signed another hash")

    def finish(self, *, end: ChainEnd, receipt: Receipt, now: datetime) -> list[str]:
        """Compare the ends; returns all problems, at most PROBLEMS_MAX of them spelled out.

        `end` and `receipt` are what the database says was written last.
        """
        for head in self._pending:
            self._problem(
                f"head {head.number} signed row {head.sequence}, but the table ends at row {self.end.sequence}"
            )
        if end.sequence > self.end.sequence:
            self._problem(_missing("row", self.end.sequence + 1, end.sequence))
        elif end.sequence >= self._first_sequence and end != self.end:
            self._problem(f"row {self.end.sequence}: it is not the row that was written last (row {end.sequence})")
        self._check_receipt(receipt)
        first = self._first_unsigned
        if first is not None and now - first.recorded_at > UNSIGNED_MAX:
            self._problem(f"{_named('row', first.sequence, self.end.sequence)}: no head was signed")
        if self._unsaid:
            return [*self._problems, f"and {self._unsaid} more"]
        return self._problems

    def _check_receipt(self, receipt: Receipt) -> None:
        last = Receipt() if self._last_head is None else receipt_of(self._last_head)
        if last.number < receipt.number:
            self._problem(f"the heads file ends at head {last.number}, but {receipt.number} heads were signed")
        elif last.number == receipt.number and last.digest != receipt.digest:
            self._problem(f"head {last.number} is not the one that was signed")

    def _problem(self, text: str) -> None:
        if len(self._problems) < PROBLEMS_MAX:
            self._problems.append(text)
        else:
            self._unsaid += 1


def _named(what: str, first: int, last: int) -> str:
    return f"{what} {first}" if first == last else f"{what}s {first} to {last}"


def _missing(what: str, first: int, last: int) -> str:
    return f"{_named(what, first, last)} {'is' if first == last else 'are'} missing"
