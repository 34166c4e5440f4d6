"""Fills the ledger with a long past: balanced entries between accounts of its own, made by the database itself.

The bank's own accounts pay each other, in pairs, there and back again, so that every balance can be computed without
looking: the ledger stays whole at any moment, also when this is interrupted.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg

ACCOUNTS: Final = 400
_PAIRS: Final = ACCOUNTS // 2
# There and back: what the accounts have is the same after two rounds.
_ROUNDS_PER_CHUNK: Final = 1_000
_PAST: Final = timedelta(days=365)
_TIMEOUT_S: Final = 600.0

_COUNT: Final = "SELECT coalesce(sum(sequence), 0)::bigint / 2 FROM account.account_balance"
_OPEN: Final = """
WITH opened AS (
    INSERT INTO account.accounts (account_id, number, kind, currency, opened_at)
    SELECT gen_random_uuid(), 'HISTORY/' || $1 || '/' || place, 'fees', 'USD', $3
      FROM generate_series(1, $2::integer) AS place
    RETURNING account_id, currency
)
INSERT INTO account.account_balance (account_id, currency, is_internal)
SELECT account_id, currency, true FROM opened
RETURNING account_id
"""
_ROUNDS: Final = """
WITH account AS (
    SELECT place, account_id, balance.sequence, balance.posted_minor
      FROM unnest($1::uuid[]) WITH ORDINALITY AS t (account_id, place)
      JOIN account.account_balance AS balance USING (account_id)
), made AS MATERIALIZED (
    SELECT round, pair, at, (millis || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS entry_id,
           (millis || '7' || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid AS payment_id
      FROM generate_series(0, $2::integer - 1) AS round
     CROSS JOIN generate_series(1, cardinality($1::uuid[]) / 2) AS pair
     CROSS JOIN LATERAL (SELECT $3::timestamptz
                                + (round * cardinality($1::uuid[]) / 2 + pair - 1) * $4::interval) AS t (at)
     CROSS JOIN LATERAL (SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')) AS u (millis)
), entry AS (
    INSERT INTO account.journal_entry (entry_id, payment_id, kind, fencing_token, booked_at)
    SELECT entry_id, payment_id, 'history', 1, at FROM made
), leg AS (
    INSERT INTO account.posting (account_id, sequence, entry_id, payment_id, amount_minor, balance_minor, booked_at)
    SELECT account_id, sequence + round + 1, entry_id, payment_id, 100 * sign,
           posted_minor + CASE WHEN round % 2 = 0 THEN 100 * sign ELSE 0 END, at
      FROM made
     CROSS JOIN LATERAL (VALUES (2 * pair - 1), (2 * pair)) AS of_pair (place)
      JOIN account USING (place)
     CROSS JOIN LATERAL (SELECT CASE WHEN (place + round) % 2 = 1 THEN -1 ELSE 1 END) AS t (sign)
)
UPDATE account.account_balance AS balance
   SET sequence = balance.sequence + $2, version = balance.version + 1,
       booked_at = (SELECT max(at) FROM made)
  FROM account
 WHERE balance.account_id = account.account_id
"""


async def grow_history(*, url: str, entries: int, tick: Callable[[str], None]) -> int:
    """Make the ledger at least so many journal entries long, as the database's owner; returns how long it is then.

    They are of the year before this month, spread evenly. Raises asyncpg's errors.
    """
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "off", "work_mem": "256MB"})
    try:
        known = int(await connection.fetchval(_COUNT))
        missing_rounds = -(-max(0, entries - known) // ACCOUNTS) * 2
        if missing_rounds:
            await _fill(connection, missing_rounds, tick)
        return known + missing_rounds * _PAIRS
    finally:
        await connection.close()


async def _fill(connection: asyncpg.Connection[Any], rounds: int, tick: Callable[[str], None]) -> None:
    end = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begin, step = end - _PAST, _PAST / (rounds * _PAIRS)
    opened = await connection.fetch(_OPEN, secrets.token_hex(3), ACCOUNTS, begin)
    accounts: list[UUID] = [row["account_id"] for row in opened]
    for first in range(0, rounds, _ROUNDS_PER_CHUNK):
        count = min(_ROUNDS_PER_CHUNK, rounds - first)
        await connection.execute(_ROUNDS, accounts, count, begin + first * _PAIRS * step, step, timeout=_TIMEOUT_S)
        tick(f"{(first + count) * _PAIRS:,} of {rounds * _PAIRS:,} entries")
    # What writing so much leaves behind is none of the payments' business.
    for statement in ("VACUUM (ANALYZE) account.posting, account.journal_entry", "CHECKPOINT"):
        await connection.execute(statement, timeout=_TIMEOUT_S)
