"""The audit trail, for auditors: searched, and verified."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

import msgspec
from litestar import get
from litestar.params import QueryParameter

from payflow.contracts.audit import Audit, AuditRow, SearchAudit, VerifyAudit
from payflow.contracts.gateway import Role
from payflow.services.gateway.domain.users import InvalidValue
from payflow.services.gateway.routes.accounts import read_entry_cursor
from payflow.services.gateway.routes.bodies import AnyRequest, first
from payflow.services.gateway.routes.operators.shared import PRINTABLE, as_text, open_to
from payflow.services.gateway.routes.payments import Cursor, Limit
from payflow.services.gateway.routes.security import freshness_name
from payflow.services.gateway.routes.services import FromServices

FromSequence = Annotated[
    int, QueryParameter(ge=1, le=2**62, description="The first row to recompute. One that does not exist is refused.")
]
Subject = Annotated[
    str | None, QueryParameter(max_length=128, pattern=PRINTABLE, description="A payment's or customer's id.")
]
EventType = Annotated[
    str | None, QueryParameter(max_length=128, pattern=PRINTABLE, description="Such as `payment.completed`.")
]


class AuditRecord(msgspec.Struct, kw_only=True):
    """One event as it was recorded. `hash` (SHA-256, hexadecimal) covers the row and `previous_hash`."""

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


class AuditRecords(msgspec.Struct):
    """Rows, newest first. `next_cursor` is null on the last page."""

    data: list[AuditRecord]
    next_cursor: str | None


class AuditVerification(msgspec.Struct, kw_only=True):
    """What was recomputed. `problems` tells in words each gap, edit, cut tail and bad signature; `is_whole`: none."""

    is_whole: bool
    rows: int
    heads: int
    last_sequence: int
    last_hash: str
    problems: list[str]


@get("/audit", guards=[open_to(Role.AUDITOR)], tags=["Audit"], summary="Search the audit trail")
async def search_audit(
    request: AnyRequest,
    services: FromServices,
    subject: Subject = None,
    type: EventType = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> AuditRecords:
    """Every change of state, newest first. A change is here a moment after it happened: audit hears of it by event."""
    query = SearchAudit(
        subject=subject,
        type=type,
        cursor=read_entry_cursor(cursor),
        limit=limit,
        fresh_as_of=await services.freshness.fresh_as_of(freshness_name(request.scope)),
    )
    page = first(await services.client(Audit).search([query]))
    return AuditRecords(data=[_record(row) for row in page.rows], next_cursor=as_text(page.next_cursor))


@get(
    "/audit/verification",
    guards=[open_to(Role.AUDITOR)],
    tags=["Audit"],
    summary="Verify the audit trail",
    opt={"errors": ("VALIDATION_FAILED",)},
)
async def verify_audit(services: FromServices, from_sequence: FromSequence = 1) -> AuditVerification:
    """Recompute the hash chain and compare it with the signed heads that are kept outside the database. Takes some
    seconds per million rows.
    """
    verified = first(await services.client(Audit).verify([VerifyAudit(from_sequence=from_sequence)]))
    if from_sequence > max(verified.last_sequence, 1) and not verified.problems:
        # Nothing was looked at: "whole" would be true and would mean nothing.
        raise InvalidValue(f"The last row of the audit trail is {verified.last_sequence}.", field="from_sequence")
    return AuditVerification(
        is_whole=not verified.problems,
        rows=verified.rows,
        heads=verified.heads,
        last_sequence=verified.last_sequence,
        last_hash=verified.last_hash,
        problems=verified.problems,
    )


def _record(row: AuditRow) -> AuditRecord:
    return msgspec.convert(row, AuditRecord, from_attributes=True)


HANDLERS = [search_audit, verify_audit]
