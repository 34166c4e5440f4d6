"""Recomputes the ledger from its postings, in one snapshot, chunk by chunk: memory and the length of each statement are
bounded, however long the ledger is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from time import perf_counter
from typing import Any, Final
from uuid import UUID

import asyncpg

from payflow.contracts.account import LedgerVerified
from payflow.platform.postgres import load_queries

POSTINGS_PER_CHUNK: Final = 50_000
PAGES_PER_CHUNK: Final = 1_000
BROKEN_MAX: Final = 100
_REST_MAX_S: Final = 2.0
_LONG_S: Final = 1800.0

queries = load_queries(__package__ or "payflow.services.account", "verification.sql")

# Told after each chunk: what is looked at, how much of it is done, how much there is.
Tick = Callable[[str, int, int], None]
Rest = Callable[[], Awaitable[None]]


async def _no_rest() -> None:
    """Somebody waits for the result."""


def rest_as_long_as_it_took() -> Rest:
    """Half of the time at most: whoever pays meanwhile should hardly notice."""
    last = perf_counter()

    async def rest() -> None:
        nonlocal last
        await asyncio.sleep(min(perf_counter() - last, _REST_MAX_S))
        last = perf_counter()

    return rest


@dataclass
class _Day:
    """Entries of a day: how many, and the sum of the hashes of their ids. Two equal sums are of the same entries."""

    entries: int = 0
    hashes: Decimal | int = 0

    def add(self, entries: int, hashes: Decimal | int) -> None:
        """Some more of the day's entries."""
        self.entries += entries
        self.hashes += hashes


@dataclass
class _OpenEntry:
    """An entry of which only some postings were seen yet."""

    day: date
    hash: Decimal | int
    postings: int = 0
    sums_minor: dict[str, int] = field(default_factory=dict)

    @property
    def is_balanced(self) -> bool:
        """Whether nothing is missing."""
        return self.postings >= 2 and not any(self.sums_minor.values())


async def verify_ledger(
    connection: Any, *, tick: Tick = lambda _what, _done, _all: None, rest: Rest = _no_rest
) -> LedgerVerified:
    """Recompute everything in the transaction that `connection` is in: read-only, repeatable read.

    `rest` is awaited after each chunk. Raises asyncpg's errors.
    """
    return await _Verification(connection, tick, rest).run()


class _Verification:
    def __init__(self, connection: Any, tick: Tick, rest: Rest) -> None:
        self._connection, self._tick, self._rest = connection, tick, rest
        self._broken: list[str] = []
        self._postings = 0

    async def run(self) -> LedgerVerified:
        size = await self._connection.fetchrow(queries.ledger_size, timeout=_LONG_S)
        await self._check_accounts(size["postings"])
        booked = await self._sum_postings()
        journal = await self._sum_journal()
        await self._compare_days(booked, journal)
        await self._check_holds_and_totals()
        return LedgerVerified(
            accounts=size["accounts"],
            entries=sum(day.entries for day in journal.values()),
            postings=self._postings,
            open_holds=size["open_holds"],
            broken=self._broken,
        )

    def _tell(self, words: str) -> None:
        if len(self._broken) < BROKEN_MAX:
            self._broken.append(words)

    async def _check_accounts(self, expected: int) -> None:
        """Each account's postings: numbered from 1 without gaps, each balance following, the last one as stored."""
        what = "accounts and their postings"
        after: tuple[UUID, datetime, int] = (UUID(int=0), datetime.min.replace(tzinfo=UTC), 0)
        runs: list[asyncpg.Record] = []
        self._tick(what, 0, expected)
        while True:
            rows = await self._connection.fetch(queries.runs, *after, POSTINGS_PER_CHUNK, timeout=_LONG_S)
            for row in rows:
                if runs and runs[-1]["account_id"] != row["account_id"]:
                    self._check_account(runs)
                    runs.clear()
                # More than these do not make it any more broken.
                if len(runs) < BROKEN_MAX:
                    runs.append(row)
            self._postings += sum(row["postings"] for row in rows)
            self._tick(what, self._postings, max(expected, self._postings))
            if not rows:
                break
            after = (rows[0]["end_account_id"], rows[0]["end_booked_at"], rows[0]["end_sequence"])
            await self._rest()
        if runs:
            self._check_account(runs)
        for row in await self._connection.fetch(queries.accounts_without_postings, timeout=_LONG_S):
            self._tell(f"account {row['number']} has {row['posted_minor']} posted and no postings")

    def _check_account(self, runs: list[asyncpg.Record]) -> None:
        name = f"account {runs[0]['number'] or runs[0]['account_id']}"
        if runs[0]["number"] is None or runs[0]["posted_minor"] is None:
            self._tell(f"{name} has postings and does not exist")
            return
        last, balance_minor, total_minor = 0, 0, 0
        for run in sorted(runs, key=lambda run: run["first"]):
            if run["first"] != last + 1:
                self._tell(f"{name}: posting {run['first']} follows on posting {last}")
            elif run["before_minor"] != balance_minor:
                self._tell(f"{name}: the balance of posting {run['first']} does not follow from the one before")
            last, balance_minor = run["last"], run["before_minor"] + run["total_minor"]
            total_minor += run["total_minor"]
        if runs[0]["posted_minor"] != total_minor:
            self._tell(f"{name} has {runs[0]['posted_minor']} posted, its postings sum to {total_minor}")
        if runs[0]["sequence"] != last:
            self._tell(f"{name} counts {runs[0]['sequence']} postings, its last one is {last}")

    async def _partitions(self, table: str) -> list[tuple[str, int]]:
        rows = await self._connection.fetch(queries.partitions, f"account.{table}")
        return [(f'account."{row["name"]}"', row["pages"]) for row in rows]

    async def _chunks(self, table: str, query: str, what: str, each: Callable[[asyncpg.Record], None]) -> None:
        """Run the query over all pages of all partitions, some at a time."""
        partitions = await self._partitions(table)
        done, pages_in_all = 0, sum(pages for _, pages in partitions)
        self._tick(what, 0, pages_in_all)
        for partition, pages in partitions:
            text = query.replace("{partition}", partition)
            for begin in range(0, pages, PAGES_PER_CHUNK):
                end = min(begin + PAGES_PER_CHUNK, pages)
                for row in await self._connection.fetch(text, (begin, 0), (end, 0), timeout=_LONG_S):
                    each(row)
                done += end - begin
                self._tick(what, done, pages_in_all)
                await self._rest()

    async def _sum_postings(self) -> dict[date, _Day]:
        """Each entry's postings: they sum to zero in each currency; what entries there are, per day."""
        days: dict[date, _Day] = {}
        still_open: dict[UUID, _OpenEntry] = {}

        def each(row: asyncpg.Record) -> None:
            if row["entry_id"] is None:
                days.setdefault(row["day"], _Day()).add(row["entries"], row["hash"])
                return
            entry = still_open.setdefault(row["entry_id"], _OpenEntry(row["day"], row["hash"]))
            currency = row["currency"] or "no currency"
            entry.postings += row["postings"]
            entry.sums_minor[currency] = entry.sums_minor.get(currency, 0) + row["amount_minor"]
            if entry.is_balanced:
                # Its postings stand on both sides of a chunk's end.
                days.setdefault(entry.day, _Day()).add(1, entry.hash)
                del still_open[row["entry_id"]]

        await self._chunks("posting", queries.entry_sums, "entries' postings", each)
        for entry_id, entry in still_open.items():
            days.setdefault(entry.day, _Day()).add(1, entry.hash)
            sums = ", ".join(f"{amount} {currency}" for currency, amount in sorted(entry.sums_minor.items()))
            self._tell(f"entry {entry_id} sums to {sums} over {entry.postings} postings")
        return days

    async def _sum_journal(self) -> dict[date, _Day]:
        """What entries the journal has, per day; none is of a payment that has another one."""
        days: dict[date, _Day] = {}

        def each(row: asyncpg.Record) -> None:
            days.setdefault(row["day"], _Day()).add(row["entries"], row["hash"])

        await self._chunks("journal_entry", queries.journal_sums, "journal entries", each)
        for partition, _ in await self._partitions("journal_entry"):
            text = queries.payments_booked_twice.replace("{partition}", partition)
            for row in await self._connection.fetch(text, timeout=_LONG_S):
                self._tell(f"payment {row['payment_id']} is booked {row['entries']} times")
            await self._rest()
        return days

    async def _compare_days(self, booked: dict[date, _Day], journal: dict[date, _Day]) -> None:
        """The entries that have postings are those of the journal: looked at one by one where a day's sums differ."""
        for day in sorted(booked.keys() | journal.keys()):
            if booked.get(day) == journal.get(day) or len(self._broken) >= BROKEN_MAX:
                continue
            # A day is compared as a whole: no index leads from an entry to its postings.
            await self._connection.execute("SET LOCAL enable_seqscan = on; SET LOCAL enable_hashjoin = on")
            found = 0
            begin = datetime.combine(day, time(), tzinfo=UTC)
            for query, words in (
                (queries.entries_of_a_day_without_postings, "has no postings"),
                (queries.postings_of_a_day_without_entry, "has postings and is not in the journal"),
            ):
                for row in await self._connection.fetch(query, begin, begin + timedelta(days=1), timeout=_LONG_S):
                    self._tell(f"entry {row['entry_id']} {words}")
                    found += 1
            if not found:
                self._tell(f"the journal's entries of {day} are not those of its postings")

    async def _check_holds_and_totals(self) -> None:
        what = "holds and totals"
        self._tick(what, 0, 1)
        for row in await self._connection.fetch(queries.holds, timeout=_LONG_S):
            self._tell(
                f"account {row['number']} holds {row['held_minor']}, its open reservations sum to {row['open_minor']}"
            )
        for row in await self._connection.fetch(queries.totals, timeout=_LONG_S):
            self._tell(row["broken"])
        self._tick(what, 1, 1)
