"""What the ledger needs from time to time, whoever pays meanwhile: months to come, and a proof that it adds up."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

from payflow.kernel.clock import Clock
from payflow.services.account.ports import Store


def last_due_at(*, now: datetime, at: time) -> datetime:
    """The last instant that had this time of day, in UTC."""
    today = datetime.combine(now.astimezone(UTC).date(), at, tzinfo=UTC)
    return today if today <= now else today - timedelta(days=1)


async def verify_daily(*, store: Store, clock: Clock, at: time) -> tuple[datetime, int] | None:
    """Verify the ledger if this is due: once after each `at`, by one process of all.

    A ledger that was never verified waits for the first `at` after its first account was opened. Returns when the
    ledger was last verified, and how many rules were broken; None if it never was.
    """
    last = await store.last_verification()
    since = last[0] if last else await store.first_account_at()
    began_at = clock.now()
    if since is None or since >= last_due_at(now=began_at, at=at):
        return last
    found = await store.verify_aside()
    if found is None:
        return last
    verified_at = clock.now()
    await store.save_verification(found, began_at=began_at, verified_at=verified_at)
    return verified_at, len(found.broken)
