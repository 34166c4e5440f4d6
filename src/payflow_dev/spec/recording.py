"""Reads the histories of all payments out of a database, in one snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec

from payflow_dev.spec.histories import History, Move

# Payments that customers ordered; whatever account or partner_bank know of others is told with no moves, which
# check_histories refuses: a payment that was undone must have left nothing behind. Returns and money that
# comes in have protocols of their own.
_SQL: Final = """
WITH effect AS (
    SELECT payment_id, count(*) AS effects FROM account.journal_entry
     WHERE kind IN ('transfer', 'capture') AND payment_id IS NOT NULL GROUP BY payment_id
), refusal AS (
    SELECT payment_id, array_agg(step ORDER BY step) AS refused FROM account.refused_command
     WHERE payment_id NOT IN (SELECT return_id FROM confirm.payment_return)
       AND payment_id NOT IN (SELECT payment_id FROM partner_bank.instruction WHERE direction = 'INCOMING')
     GROUP BY payment_id
), sent AS (
    SELECT payment_id, status FROM partner_bank.instruction WHERE direction = 'OUTGOING'
), step AS (
    SELECT payment_id, array_agg(version ORDER BY version) AS versions, array_agg(source ORDER BY version) AS sources,
           array_agg(target ORDER BY version) AS targets, array_agg(at ORDER BY version) AS instants
      FROM confirm.payment_transition GROUP BY payment_id
)
SELECT payment_id, payment.fencing_token, payment.creditor_account_id IS NOT NULL AS is_on_us,
       payment.execute_at IS NOT NULL AS is_for_later,
       coalesce(step.versions, '{}') AS versions, coalesce(step.sources, '{}') AS sources,
       coalesce(step.targets, '{}') AS targets, coalesce(step.instants, '{}') AS instants,
       coalesce(effect.effects, 0) AS effects, hold.state AS hold, coalesce(refusal.refused, '{}') AS refused,
       sent.status AS instruction
  FROM confirm.transactions AS payment
  LEFT JOIN step USING (payment_id)
  FULL JOIN effect USING (payment_id)
  FULL JOIN account.fund_reservations AS hold USING (payment_id)
  FULL JOIN refusal USING (payment_id)
  FULL JOIN sent USING (payment_id)
 ORDER BY payment_id
"""


async def record_histories(*, database_url: str, path: Path) -> int:
    """Write every payment's history to a file, one JSON object a line; how many there are.

    `database_url`: the database's address as its owner. Raises asyncpg and OS errors as they come.
    """
    connection = await asyncpg.connect(database_url)
    try:
        # One statement sees one snapshot, so that what two services stored is told as it was at one instant.
        with path.open("wb") as file:
            count = 0
            async with connection.transaction(readonly=True):
                async for row in connection.cursor(_SQL, prefetch=1000):
                    file.write(msgspec.json.encode(_history(row)) + b"\n")
                    count += 1
            return count
    finally:
        await connection.close()


def _history(row: Any) -> History:
    columns = zip(row["versions"], row["sources"], row["targets"], row["instants"], strict=True)
    return History(
        payment_id=str(row["payment_id"]),
        is_on_us=bool(row["is_on_us"]),
        is_for_later=bool(row["is_for_later"]),
        moves=[Move(version=version, source=source, target=target, at=at) for version, source, target, at in columns],
        effects=row["effects"],
        hold=row["hold"],
        refused=row["refused"],
        instruction=row["instruction"],
        fencing_token=row["fencing_token"],
    )
