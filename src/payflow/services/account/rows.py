"""Rows of the ledger's tables, from and to what the domain works with."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

import asyncpg

from payflow.contracts.account import AccountState, AccountView
from payflow.services.account.domain import Balance, Changes, Entry, Hold


def balance_of(row: asyncpg.Record) -> Balance:
    """An account's balance."""
    return Balance(
        account_id=row["account_id"],
        currency=row["currency"],
        state=AccountState(row["state"]),
        is_internal=row["is_internal"],
        is_owner_blocked=row["is_owner_blocked"],
        posted_minor=row["posted_minor"],
        held_minor=row["held_minor"],
        sequence=row["sequence"],
        version=row["version"],
        booked_at=row["booked_at"],
    )


def booking_columns(changes: Changes, balances: Sequence[Balance]) -> list[object]:
    """What the statements that book take first: entries, their postings, and the balances that follow."""
    entries, postings, at = changes.entries, changes.postings, changes.at
    return [
        [entry.entry_id for entry in entries],
        [entry.payment_id for entry in entries],
        [entry.kind for entry in entries],
        [entry.fencing_token for entry in entries],
        at,
        [posting.account_id for posting in postings],
        [posting.sequence for posting in postings],
        [posting.entry_id for posting in postings],
        [posting.amount_minor for posting in postings],
        [posting.balance_minor for posting in postings],
        [balance.account_id for balance in balances],
        [balance.posted_minor for balance in balances],
        [balance.held_minor for balance in balances],
        [balance.sequence for balance in balances],
        _unless_all_are(at, [entry.booked_at for entry in entries]),
        _unless_all_are(at, [posting.booked_at for posting in postings]),
        _unless_all_are(at, [balance.booked_at for balance in balances]),
    ]


def _unless_all_are(at: datetime, instants: list[datetime | None]) -> list[datetime | None]:
    """The instants; none of them where all are `at`, the usual case, which then costs nothing."""
    return [] if all(instant == at for instant in instants) else instants


def payments_of(changes: Changes) -> list[UUID | None]:
    """The payment of each posting."""
    return [posting.payment_id for posting in changes.postings]


def span_of(payment_ids: Sequence[UUID]) -> tuple[UUID | None, UUID | None]:
    """The least and the greatest id."""
    return min(payment_ids, default=None), max(payment_ids, default=None)


def entry_of(row: asyncpg.Record) -> Entry:
    """A journal entry, of an outcome."""
    return Entry(row["id"], row["payment_id"], row["word"], row["fencing_token"], row["at"])


def hold_of(row: asyncpg.Record) -> Hold:
    """A hold, of an outcome."""
    return Hold(
        payment_id=row["payment_id"],
        hold_id=row["id"],
        account_id=row["account_id"],
        amount_minor=row["amount_minor"],
        currency=row["currency"],
        state=row["word"],
        fencing_token=row["fencing_token"],
        placed_at=row["at"],
        expires_at=row["expires_at"],
        ended_at=row["ended_at"],
        end_reason=row["text"],
    )


def account_view_of(row: asyncpg.Record, as_of: datetime | None = None) -> AccountView:
    """An account as the contract tells it."""
    return AccountView(
        number=row["number"],
        customer_id=row["customer_id"],
        currency=row["currency"],
        state=AccountState(row["state"]),
        posted_minor=row["posted_minor"],
        held_minor=row["held_minor"],
        opened_at=row["opened_at"],
        as_of=as_of,
    )
