"""The ledger's verification finds what is broken, in chunks of any size; the service's role can break nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from payflow.contracts.account import AccountView, LedgerVerified
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.services.account import verification
from payflow.services.account.store import PostgresStore
from tests.builders import a_hold, a_transfer
from tests.builders_account import World


class Books(World):
    """Some accounts with payments between them, and a way to look at the tables as their owner."""

    def __init__(self, store: PostgresStore, owner: Any) -> None:
        super().__init__(store)
        self.real, self.owner = store, owner

    async def fill(self) -> None:
        self.accounts: list[AccountView] = [await self.account(100_000) for _ in range(4)]
        self.ids: list[UUID] = [await self.id_of(account) for account in self.accounts]
        for step in range(12):
            self.clock.move(timedelta(hours=7))
            pairs = [(self.ids[step % 4], self.ids[(step + other) % 4]) for other in (1, 2, 3)]
            await self.confirm.transfer([a_transfer(debtor, creditor, 10 + step) for debtor, creditor in pairs])
        await self.confirm.place_hold([a_hold(self.ids[0], 77)])

    async def verify(self) -> LedgerVerified:
        return await self.real.verify()

    @asynccontextmanager
    async def broken_by(self, *statements: str, back: tuple[str, ...]) -> AsyncIterator[list[str]]:
        """What is found after somebody with all rights has changed the books."""
        for statement in statements:
            await self.owner.execute(statement)
        try:
            yield (await self.verify()).broken
        finally:
            for statement in back:
                await self.owner.execute(statement)


@pytest.fixture(scope="module")
async def books(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher, database_url: str
) -> AsyncIterator[Books]:
    database = await connect_as("account")
    owner = await asyncpg.connect(database_url, server_settings={"search_path": "account"})
    books = Books(PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7()), owner)
    await books.fill()
    yield books
    await owner.close()


async def test_whole_books_are_found_whole_and_counted(books: Books) -> None:
    found = await books.verify()

    assert found.broken == []
    assert (found.accounts, found.entries, found.postings, found.open_holds) == (5, 40, 80, 1)


@pytest.mark.parametrize("postings", [1, 2, 7, 80])
async def test_the_size_of_a_chunk_changes_nothing(
    books: Books, monkeypatch: pytest.MonkeyPatch, postings: int
) -> None:
    monkeypatch.setattr(verification, "POSTINGS_PER_CHUNK", postings)
    monkeypatch.setattr(verification, "PAGES_PER_CHUNK", 1)
    ticks: list[tuple[str, int, int]] = []

    async with books.real._database.transaction(is_read_only=True) as connection:
        found = await verification.verify_ledger(connection, tick=lambda *tick: ticks.append(tick))

    assert (found.broken, found.postings) == ([], 80)
    assert ("accounts and their postings", 80, 80) in ticks
    assert all(done <= everything for _, done, everything in ticks)


async def test_a_changed_amount_is_found_with_its_account_and_entry(books: Books) -> None:
    where = f"account_id = '{books.ids[0]}' AND sequence = 3"

    async with books.broken_by(
        f"UPDATE posting SET amount_minor = amount_minor + 1 WHERE {where}",
        back=(f"UPDATE posting SET amount_minor = amount_minor - 1 WHERE {where}",),
    ) as broken:
        assert any(line.startswith(f"account {books.accounts[0].number}: the balance of posting 3") for line in broken)
        assert any(f"account {books.accounts[0].number} has" in line for line in broken)
        assert any(line.startswith("entry ") and "sums to 1 USD over 2 postings" in line for line in broken)


async def test_a_changed_running_balance_is_found(books: Books) -> None:
    where = f"account_id = '{books.ids[1]}' AND sequence = 2"

    async with books.broken_by(
        f"UPDATE posting SET balance_minor = balance_minor + 5 WHERE {where}",
        back=(f"UPDATE posting SET balance_minor = balance_minor - 5 WHERE {where}",),
    ) as broken:
        assert any(f"account {books.accounts[1].number}: the balance of posting 2" in line for line in broken)


async def test_a_missing_posting_is_found(books: Books) -> None:
    where = f"account_id = '{books.ids[2]}' AND sequence = 4"

    async with books.broken_by(
        f"CREATE TABLE kept AS SELECT * FROM posting WHERE {where}",
        f"DELETE FROM posting WHERE {where}",
        back=("INSERT INTO posting SELECT * FROM kept", "DROP TABLE kept"),
    ) as broken:
        assert f"account {books.accounts[2].number}: posting 5 follows on posting 3" in broken
        assert any(line.startswith("entry ") and "over 1 postings" in line for line in broken)


async def test_a_missing_and_a_strange_entry_are_found(books: Books) -> None:
    first = "(SELECT entry_id FROM journal_entry WHERE kind = 'transfer' ORDER BY entry_id LIMIT 1)"

    async with books.broken_by(
        f"CREATE TABLE kept AS SELECT * FROM journal_entry WHERE entry_id = {first}",
        "UPDATE journal_entry SET entry_id = gen_random_uuid() WHERE entry_id = (SELECT entry_id FROM kept)",
        back=(
            "UPDATE journal_entry AS entry SET entry_id = kept.entry_id FROM kept "
            "WHERE entry.payment_id = kept.payment_id",
            "DROP TABLE kept",
        ),
    ) as broken:
        assert [line.split(" ", 2)[2] for line in sorted(broken, key=lambda line: line.split(" ", 2)[2])] == [
            "has no postings",
            "has postings and is not in the journal",
        ]


async def test_changed_balances_and_holds_are_found(books: Books) -> None:
    where = f"WHERE account_id = '{books.ids[0]}'"

    async with books.broken_by(
        f"UPDATE account_balance SET posted_minor = posted_minor + 9, held_minor = held_minor + 2 {where}",
        back=(f"UPDATE account_balance SET posted_minor = posted_minor - 9, held_minor = held_minor - 2 {where}",),
    ) as broken:
        assert f"account {books.accounts[0].number} holds 79, its open reservations sum to 77" in broken
        assert "all accounts in USD sum to 9" in broken


async def test_a_payment_booked_twice_is_found_where_the_constraint_was_dropped(books: Books) -> None:
    async with books.broken_by(
        "ALTER TABLE journal_entry DROP CONSTRAINT one_booking_per_payment",
        "INSERT INTO journal_entry SELECT gen_random_uuid(), payment_id, kind, fencing_token, booked_at "
        "FROM journal_entry WHERE kind = 'transfer' ORDER BY entry_id LIMIT 1",
        back=(
            "DELETE FROM journal_entry WHERE NOT EXISTS (SELECT FROM posting WHERE entry_id = journal_entry.entry_id)",
            "ALTER TABLE journal_entry ADD CONSTRAINT one_booking_per_payment UNIQUE (payment_id)",
        ),
    ) as broken:
        assert any("is booked 2 times" in line for line in broken)


@pytest.mark.parametrize("verb", ["UPDATE {} SET {} = {}", "DELETE FROM {0}", "TRUNCATE {0}"])
async def test_the_services_role_can_neither_change_nor_remove_what_is_written(
    books: Books, connect_as: Callable[[str], Awaitable[Database]], verb: str
) -> None:
    database = await connect_as("account")
    columns = {
        "posting": "amount_minor",
        "journal_entry": "kind",
        "refused_command": "code",
        "ledger_verification": "broken",
    }
    partitions = await books.owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'account'::regnamespace AND relispartition AND relkind = 'r'"
    )
    columns |= {row["relname"]: "booked_at" for row in partitions}

    assert len(columns) >= 14
    for table, column in columns.items():
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await database.execute(verb.format(table, column, column))


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO posting_before SELECT * FROM posting",
        "SELECT make_ledger_partition('posting', 'x', 'booked_at', '2030-01-01', '2030-02-01')",
        "ALTER TABLE posting DETACH PARTITION posting_before",
        "DROP TABLE posting_before",
        "CREATE TABLE account.x ()",
    ],
)
async def test_the_services_role_has_no_say_in_how_the_ledger_is_laid_out(
    connect_as: Callable[[str], Awaitable[Database]], statement: str
) -> None:
    database = await connect_as("account")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await database.execute(statement)
