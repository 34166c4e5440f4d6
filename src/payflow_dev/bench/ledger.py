"""What the instance's database has of a run's payments, read as its owner and in one snapshot."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import asyncpg
import msgspec

from payflow.services.account.verification import verify_ledger
from payflow_dev.bench.money import Leg, Recorded

_POLL_S: Final = 0.5

# Unfinished payments that only time or the other bank ends; one waiting for a password or an officer is at rest.
_UNFINISHED: Final = """
SELECT count(*)
  FROM confirm.transactions
 WHERE starts_with(transaction_id, $1)
   AND state IN ('RECEIVED', 'APPROVED', 'HELD', 'SUBMITTED')
"""
_PAYMENTS: Final = """
SELECT payment.transaction_id, payment.state, entry.entry_id, posting.amount_minor,
       CASE WHEN account.kind = 'customer' THEN account.number END AS account
  FROM confirm.transactions AS payment
  LEFT JOIN account.journal_entry AS entry USING (payment_id)
  LEFT JOIN account.posting AS posting USING (entry_id)
  LEFT JOIN account.accounts AS account USING (account_id)
 WHERE starts_with(payment.transaction_id, $1)
"""
_BALANCES: Final = """
SELECT account.number, balance.posted_minor, balance.held_minor
  FROM account.accounts AS account
  JOIN account.account_balance AS balance USING (account_id)
 WHERE account.number = ANY($1::text[])
"""
_FETCH_ROWS: Final = 5000


class LedgerState(msgspec.Struct, frozen=True, kw_only=True):
    """A run's payments by transaction id, and its accounts' (posted, held) balances, all of one instant."""

    payments: dict[str, Recorded]
    balances: dict[str, tuple[int, int]]


async def wait_until_finished(*, url: str, prefix: str, seconds_max: float, tick: Callable[[], None]) -> int:
    """Wait until no payment of the run is under way; returns how many still are when the time is over."""
    connection = await asyncpg.connect(url)
    deadline = time.monotonic() + seconds_max
    try:
        while True:
            unfinished = int(await connection.fetchval(_UNFINISHED, prefix))
            if not unfinished or time.monotonic() >= deadline:
                return unfinished
            tick()
            await asyncio.sleep(_POLL_S)
    finally:
        await connection.close()


async def read_ledger(*, url: str, prefix: str, accounts: Sequence[str]) -> LedgerState:
    """Read every payment whose transaction id begins with `prefix`, and these accounts' balances."""
    connection = await asyncpg.connect(url, command_timeout=300)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            balances = {
                row["number"]: (row["posted_minor"], row["held_minor"])
                for row in await connection.fetch(_BALANCES, list(accounts))
            }
            return LedgerState(payments=await _read_payments(connection, prefix), balances=balances)
    finally:
        await connection.close()


async def broken_ledger_rules(url: str) -> list[str]:
    """What is wrong when the ledger is recomputed from its postings, as `payflow ledger verify` does."""
    connection = await asyncpg.connect(url, server_settings={"search_path": "account"})
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return (await verify_ledger(connection)).broken
    finally:
        await connection.close()


async def _read_payments(connection: asyncpg.Connection[Any], prefix: str) -> dict[str, Recorded]:
    payments: dict[str, Recorded] = {}
    legs: dict[str, list[Leg]] = {}
    async for row in connection.cursor(_PAYMENTS, prefix, prefetch=_FETCH_ROWS):
        name = row["transaction_id"]
        if name not in payments:
            payments[name] = Recorded(row["state"], legs.setdefault(name, []))
        if row["amount_minor"] is not None:
            legs[name].append(Leg(row["entry_id"].bytes, row["account"], row["amount_minor"]))
    return payments
