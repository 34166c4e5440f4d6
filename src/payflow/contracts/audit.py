"""The audit service: a hash-chained record of every event, with signed heads."""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Protocol

import msgspec

from payflow.contracts.operation import Answers, operation


class SearchAudit(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. `subject` is a payment id or customer id; `cursor` the last sequence seen.

    `fresh_as_of`: what was committed up to then must be in it, later rows may be missing; None: none may.
    """

    subject: str | None = None
    type: str | None = None
    cursor: int | None = None
    limit: int = 50
    oldest_first: bool = False
    fresh_as_of: datetime | None = None


class AuditRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row: `hash` covers the row's contents and `previous_hash` (hex SHA-256)."""

    sequence: int
    event_id: str
    type: str
    source: str
    subject: str
    version: int
    occurred_at: datetime
    recorded_at: datetime
    data: dict[str, Any]
    traceparent: str
    previous_hash: str
    hash: str


class AuditPage(msgspec.Struct, frozen=True, kw_only=True):
    rows: list[AuditRow]
    next_cursor: int | None


class VerifyAudit(msgspec.Struct, frozen=True, kw_only=True):
    """Recompute the chain from `from_sequence` on and compare it with every signed head outside the table."""

    from_sequence: int = 1


class AuditVerified(msgspec.Struct, frozen=True, kw_only=True):
    """`problems` is empty when the chain is whole: no gap, no edit, no cut tail, every head's signature good.

    `events_set_aside` counts the events that any consumer could not handle or that were forged (a warning: the chain
    has no row of a forged one).
    """

    rows: int
    heads: int
    last_sequence: int
    last_hash: str
    problems: list[str]
    events_set_aside: int = 0


class Audit(Protocol):
    """Operations of the audit service."""

    service: ClassVar[str] = "audit"

    @operation(callers={"gateway", "cli"})
    async def search(self, queries: list[SearchAudit]) -> Answers[AuditPage]: ...

    @operation(callers={"gateway", "cli"}, timeout_s=600)
    async def verify(self, queries: list[VerifyAudit]) -> Answers[AuditVerified]: ...
