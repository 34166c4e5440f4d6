"""The ledger in months: an older database keeps its balances, and a look-up reads the months it needs, no more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextvars import Context
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import asyncpg
import pytest

import payflow.platform.migrate
from payflow.contracts.account import EntryPage, GetAccount, ListEntries
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.migrate import Migration, migrate, migrations_of
from payflow.platform.postgres import Database
from payflow.services.account.store import PostgresStore, queries
from payflow.services.account.usecases import upkeep
from tests.builders import NOON, FixedClock, a_transfer, new_id
from tests.builders_account import World
from tests.conftest import SERVICE_NAMES, role_url
from tests.support.servers import with_database

NAMESPACE = UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")


@pytest.fixture
async def older_url(
    postgres_url: str, password_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A database as the release before the months left it."""
    name = f"older_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name}")
    url = with_database(postgres_url, database=name)

    def older(service: str) -> Sequence[Migration]:
        found = migrations_of(service)
        return found[:1] if service == "account" else found

    with monkeypatch.context() as patch:
        patch.setattr(payflow.platform.migrate, "migrations_of", older)
        await migrate(admin_url=url, services=SERVICE_NAMES, password_files=password_files)
    yield url
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def _store(url: str, password_files: dict[str, Path], cipher: ColumnCipher) -> tuple[Database, PostgresStore]:
    database = await Database.connect(
        url=role_url(url, "account", password_files), pool_size=4, application="test", schema="account"
    )
    return database, PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())


async def _book_as_before(owner: Any, legs: list[tuple[UUID, int]], *, payment_id: UUID | None, at: datetime) -> None:
    """An entry as the release before wrote it."""
    entry_id = new_id()
    await owner.execute(
        "INSERT INTO journal_entry (entry_id, payment_id, kind, fencing_token, booked_at) VALUES ($1, $2, $3, 1, $4)",
        entry_id,
        payment_id,
        "opening" if payment_id is None else "incoming" if payment_id.version == 5 else "transfer",
        at,
    )
    for account_id, amount in legs:
        await owner.execute(
            "WITH balance AS (UPDATE account_balance SET posted_minor = posted_minor + $3, sequence = sequence + 1 "
            "WHERE account_id = $1 RETURNING *) "
            "INSERT INTO posting (account_id, sequence, entry_id, amount_minor, balance_minor, booked_at) "
            "SELECT account_id, sequence, $2, $3::bigint, posted_minor, $4 FROM balance",
            account_id,
            entry_id,
            amount,
            at,
        )


async def _an_older_ledger(owner: Any, cipher: ColumnCipher) -> None:
    now = datetime.now(UTC)
    name = cipher.encrypt("Ada Byron", place="customers.name:cust_1")
    await owner.execute("INSERT INTO customers VALUES ('cust_1', $1, NULL, NULL, 'GB', 'ACTIVE', 1, $2)", name, now)
    ids = {number: new_id() for number in ("A1", "A2", "OPENING/USD", "NOSTRO/NORDDEFFXXX/USD")}
    for number, account_id in ids.items():
        kind = number.split("/")[0].lower() if "/" in number else "customer"
        owner_id = "cust_1" if kind == "customer" else None
        await owner.execute(
            "INSERT INTO accounts VALUES ($1, $2, $3, $4, 'USD', 'OPEN', 1, $5)",
            account_id,
            number,
            owner_id,
            kind,
            now,
        )
        await owner.execute(
            "INSERT INTO account_balance (account_id, currency, is_internal) VALUES ($1, 'USD', $2)",
            account_id,
            kind != "customer",
        )
    begin = now - timedelta(days=70)
    await _book_as_before(owner, [(ids["OPENING/USD"], -1_000), (ids["A1"], 1_000)], payment_id=None, at=begin)
    for day in range(60):
        at = begin + timedelta(days=day + 1)
        await _book_as_before(owner, [(ids["A1"], -10), (ids["A2"], 10)], payment_id=new_id(), at=at)
        incoming = uuid5(NAMESPACE, str(day))
        await _book_as_before(owner, [(ids["NOSTRO/NORDDEFFXXX/USD"], -3), (ids["A1"], 3)], payment_id=incoming, at=at)


@pytest.mark.parametrize("is_empty", [True, False])
async def test_a_ledger_of_the_release_before_keeps_all_it_has(
    older_url: str, password_files: dict[str, Path], cipher: ColumnCipher, is_empty: bool
) -> None:
    owner = await asyncpg.connect(older_url, server_settings={"search_path": "account"})
    if not is_empty:
        await _an_older_ledger(owner, cipher)
    before = await owner.fetch("SELECT * FROM posting ORDER BY account_id, sequence")
    entries = await owner.fetch("SELECT * FROM journal_entry ORDER BY entry_id")

    await migrate(admin_url=older_url, services=SERVICE_NAMES, password_files=password_files)

    columns = "account_id, sequence, entry_id, amount_minor, balance_minor, booked_at"
    assert await owner.fetch(f"SELECT {columns} FROM posting ORDER BY account_id, sequence") == before
    assert await owner.fetch("SELECT * FROM journal_entry ORDER BY entry_id") == entries
    database, store = await _store(older_url, password_files, cipher)
    assert (await store.verify()).broken == []
    if not is_empty:
        await _goes_on(store)
    await database.close()
    await owner.close()


async def _goes_on(store: PostgresStore) -> None:
    """Statements and balances reach back over the migration, and payments are made on top."""
    world = World(store)
    world.clock.move(datetime.now(UTC) - NOON)
    (view,) = await world.operator.get_accounts([GetAccount(number="A1")])
    creditor_id = await world.id_of((await world.operator.get_accounts([GetAccount(number="A2")]))[0])
    (booked,) = await world.confirm.transfer([a_transfer(await world.id_of(view), creditor_id, 80)])
    (page,) = await world.operator.list_entries([ListEntries(number="A1", limit=200)])

    assert isinstance(page, EntryPage), (booked, page)
    assert page.closing_minor == 1_000 - 60 * 10 + 60 * 3 - 80 == page.entries[0].balance_minor
    assert [line.kind for line in page.entries[:3]] == ["transfer", "incoming", "transfer"]
    assert [line.sequence for line in page.entries] == list(range(122, 0, -1))
    assert (page.entries[-1].kind, page.entries[-1].payment_id) == ("opening", None)
    assert all(line.payment_id is not None for line in page.entries[:-1])
    middle = page.entries[60].booked_at
    (then,) = await store.accounts_at([("A1", middle)])
    assert (await store.accounts_at([("A1", middle)]))[then].posted_minor == next(
        line.balance_minor for line in page.entries if line.booked_at <= middle
    )
    assert (await store.verify()).broken == []


async def _plan(connection: Any, query: str, *args: str) -> str:
    """How the query ran as a prepared statement, whose plan knows no values: as the service runs it."""
    await connection.execute(f"PREPARE looked_at AS {query}")
    values = ", ".join(f"'{value}'" for value in args)
    rows = await connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) EXECUTE looked_at ({values})")
    await connection.execute("DEALLOCATE looked_at")
    return "\n".join(row[0] for row in rows)


def _looked_into(plan: str, table: str) -> set[str]:
    """The partitions of a table that a plan has really read."""
    found, name = set(), ""
    for line in plan.splitlines():
        for word in line.replace('"', "").split():
            if word.startswith(f"{table}_20") or word in (f"{table}_before", f"{table}_other"):
                name = word
        if name and f" {name} " in line + " " and "never executed" not in line:
            found.add(name)
        name = ""
    return found


async def test_a_look_up_by_payment_reads_the_month_of_its_id_alone(
    connect_as: Callable[[str], Awaitable[Database]],
) -> None:
    database = await connect_as("account")
    ids = [new_id() for _ in range(5)]

    async with database.transaction() as connection:
        plan = await _plan(
            connection, queries.outcomes, "{" + ",".join(map(str, ids)) + "}", str(min(ids)), str(max(ids))
        )

    assert _looked_into(plan, "journal_entry") == {f"journal_entry_{datetime.now(UTC):%Y_%m}"}, plan
    assert "Subplans Removed" in plan


async def test_a_balance_as_of_an_instant_reads_no_later_month(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> None:
    database = await connect_as("account")
    store = PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
    account = await World(store).account(100)

    async with database.transaction() as connection:
        plan = await _plan(connection, queries.range_balances, account.number, str(NOON), str(NOON))

    assert not {name for name in _looked_into(plan, "posting") if name.startswith("posting_20")}, plan


async def test_months_are_made_ahead_once_and_take_in_what_strayed(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher, database_url: str
) -> None:
    database = await connect_as("account")
    store = PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
    owner = await asyncpg.connect(database_url, server_settings={"search_path": "account"})
    last = await owner.fetchval(
        "SELECT max(relname) FROM pg_class WHERE relname LIKE 'posting_20%' AND relispartition AND relkind = 'r'"
    )
    month = last.removeprefix("posting_")
    # As if the last month had never been made, and a booking had come for it.
    await owner.execute(f"DROP TABLE posting_{month}, journal_entry_{month}")
    world = World(store)
    world.clock.move(datetime.strptime(month, "%Y_%m").replace(tzinfo=UTC) + timedelta(days=3) - NOON)
    account = await world.account(100)

    stray = (await owner.fetchval("SELECT count(*) FROM posting_other"), await owner.fetchval(queries.stray_rows))
    after = [await store.make_partitions(), await store.make_partitions()]
    moved = await owner.fetchval(f"SELECT count(*) FROM posting_{month}")
    found = await store.verify()

    assert stray == (2, 2)
    assert (after, moved) == ([0, 0], 2)
    assert found.broken == []
    assert (await world.balance(account)) == (100, 0)
    await owner.close()


async def test_of_several_processes_one_verifies(
    connect_as: Callable[[str], Awaitable[Database]], cipher: ColumnCipher
) -> None:
    database = await connect_as("account")
    store = PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())
    async with database.transaction() as connection:
        await connection.fetchval(queries.claim_verification)
        # Another task: it has a connection of its own, as another process has.
        second = await asyncio.create_task(store.verify_aside(), context=Context())

    await World(store).account()
    clock = FixedClock(datetime.now(UTC))
    found = await upkeep.verify_daily(store=store, clock=clock, at=datetime.min.time())

    assert second is None
    assert found is not None
    assert await store.last_verification() == found


async def test_a_ledger_begins_with_its_first_customers_account(
    older_url: str, password_files: dict[str, Path], cipher: ColumnCipher
) -> None:
    await migrate(admin_url=older_url, services=SERVICE_NAMES, password_files=password_files)
    database, store = await _store(older_url, password_files, cipher)
    world = World(store)
    begins = [await store.first_account_at()]
    # Made when it is first needed, and perhaps with an id that tells no time.
    await store.internal_account(kind="opening", currency="USD")
    begins.append(await store.first_account_at())
    for _ in range(2):
        await world.account(100)
        begins.append(await store.first_account_at())
        world.clock.move(timedelta(days=1))

    assert begins == [None, None, NOON, NOON]
    await database.close()
