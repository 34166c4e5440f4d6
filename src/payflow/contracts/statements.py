"""What the ledger tells of itself: accounts' statements, and whether it adds up. Part of the account contract."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec


class EntryCursor(msgspec.Struct, frozen=True):
    """A posting's place in its account's statement. New postings do not move it."""

    booked_at: datetime
    sequence: int


class ListEntries(msgspec.Struct, frozen=True, kw_only=True):
    """Statement lines, newest first, after `cursor`, at most `limit`; `is_oldest_first` turns them round.

    Only those with booked_from <= booked_at < booked_until, where these are given.
    `fresh_as_of`: what was committed up to then must be in it, later entries may be missing; None: none may.
    """

    number: str
    customer_id: str | None = None
    booked_from: datetime | None = None
    booked_until: datetime | None = None
    cursor: EntryCursor | None = None
    limit: int = 50
    is_oldest_first: bool = False
    fresh_as_of: datetime | None = None


class EntryLine(msgspec.Struct, frozen=True, kw_only=True):
    """One posting: `amount_minor` is signed (negative leaves the account), `balance_minor` the balance after it."""

    sequence: int
    entry_id: UUID
    payment_id: UUID | None
    kind: str
    amount_minor: int
    balance_minor: int
    currency: str
    booked_at: datetime


class EntryPage(msgspec.Struct, frozen=True, kw_only=True):
    """Some lines, and the account's posted balance before the first and after the last line of the whole range."""

    entries: list[EntryLine]
    opening_minor: int
    closing_minor: int
    next_cursor: EntryCursor | None


class VerifyLedger(msgspec.Struct, frozen=True, kw_only=True):
    """Recompute every balance from the postings, in one snapshot."""


class LedgerVerified(msgspec.Struct, frozen=True, kw_only=True):
    """What was recomputed, and each broken rule in words; an empty list means the ledger is whole."""

    accounts: int
    entries: int
    postings: int
    open_holds: int
    broken: list[str]
