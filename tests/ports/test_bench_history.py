"""The bench's long past: as long as asked for, and nothing that the books could be blamed for."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from payflow.run.invariants.check import check_database
from payflow.services.account.verification import verify_ledger
from payflow_dev.bench import history
from payflow_dev.bench.history import grow_history


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "_ROUNDS_PER_CHUNK", 4)


async def test_the_ledger_grows_to_each_length_and_stays_whole(database_url: str) -> None:
    notes: list[str] = []

    lengths = [
        await grow_history(url=database_url, entries=entries, tick=notes.append) for entries in (1_900, 500, 4_000)
    ]

    owner = await asyncpg.connect(database_url, server_settings={"search_path": "account"})
    async with owner.transaction(isolation="repeatable_read", readonly=True):
        found = await verify_ledger(owner)
    spread = await owner.fetchrow(
        "SELECT min(booked_at), max(booked_at), count(DISTINCT payment_id) FROM journal_entry"
    )
    await owner.close()
    assert lengths == [2_000, 2_000, 4_000]
    assert (found.broken, found.entries, found.postings) == ([], 4_000, 8_000)
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    assert spread is not None
    assert spread["min"] == month - timedelta(days=365)
    assert month - timedelta(days=1) < spread["max"] < month
    assert spread["count"] == 4_000
    assert notes[-1] == "2,000 of 2,000 entries"


async def test_every_rule_is_kept_with_a_long_past(database_url: str) -> None:
    await grow_history(url=database_url, entries=2_000, tick=lambda _note: None)

    findings = await check_database(database_url, quiet_within=timedelta(seconds=30))

    assert [finding.words for finding in findings if not finding.is_kept] == []
