"""Migrations on a real server: once, in order, by one at a time, and what each role may do afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from payflow.platform import migrate as module
from payflow.platform.migrate import Migration, MigrationError, migrate, migrations_of
from payflow.run.registry import OTHER_BANK, SERVICES, service_names
from tests.conftest import role_url
from tests.support.servers import with_database

SERVICE_NAMES = service_names((*SERVICES, OTHER_BANK))
FEW = ("account", "kyc")


@pytest.fixture
async def empty_url(postgres_url: str) -> AsyncIterator[str]:
    """The owner's address of a database in which nothing is yet."""
    name = f"empty_{secrets.token_hex(6)}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name}")
    yield with_database(postgres_url, database=name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


async def query(url: str, statement: str, *arguments: object) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(statement, *arguments)
    finally:
        await connection.close()


async def test_an_empty_database_is_filled_once(empty_url: str) -> None:
    first = await migrate(admin_url=empty_url, services=FEW, password_files={})
    second = await migrate(admin_url=empty_url, services=FEW, password_files={})

    applied = await query(empty_url, "SELECT service, number FROM payflow_migration.applied")
    assert (first, second) == (True, False)
    assert {row["service"] for row in applied} == {"event_log", *FEW}


async def test_a_role_begins_its_sessions_as_its_service_needs_them_whoever_opens_them(
    empty_url: str, password_files: dict[str, Path]
) -> None:
    files = {service: password_files[service] for service in FEW}
    await migrate(admin_url=empty_url, services=FEW, password_files=files)

    (row,) = await query(
        role_url(empty_url, "kyc", password_files),
        "SELECT current_setting('search_path') AS path, current_setting('plan_cache_mode') AS plans, "
        "current_setting('enable_seqscan') AS scans, current_setting('TimeZone') AS zone",
    )

    assert tuple(row) == ("kyc, event_log", "force_generic_plan", "off", "UTC")


async def test_whoever_watches_the_server_reads_its_figures_and_nobodys_tables(empty_url: str, tmp_path: Path) -> None:
    password = tmp_path / "postgres_monitor"
    password.write_text("watching-'only", encoding="utf-8")

    for _ in range(2):
        await migrate(admin_url=empty_url, services=FEW, password_files={"monitor": password})

    url = role_url(empty_url, "monitor", {"monitor": password})
    (row,) = await query(url, "SELECT count(*) AS databases FROM pg_stat_database")
    assert row["databases"] > 1
    for table in ("account.account", "event_log.batch"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(url, f"SELECT * FROM {table}")


async def test_of_two_that_migrate_at_once_one_does_the_work(empty_url: str) -> None:
    answers = await asyncio.gather(
        *(migrate(admin_url=empty_url, services=SERVICE_NAMES, password_files={}) for _ in range(4))
    )

    applied = await query(empty_url, "SELECT service, number FROM payflow_migration.applied")
    assert sorted(answers) == [False, False, False, True]
    assert len(applied) == sum(len(migrations_of(service)) for service in ("event_log", *SERVICE_NAMES))


async def test_two_databases_of_one_server_can_be_migrated_at_once(
    postgres_url: str, password_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"side_{secrets.token_hex(6)}" for _ in range(6)]
    role = f"new{secrets.token_hex(4)}"
    release_with(monkeypatch, **{role: [Migration(role, 1, "0001_initial.sql", "CREATE TABLE t (id int)")]})
    admin = await asyncpg.connect(postgres_url)
    for name in names:
        await admin.execute(f"CREATE DATABASE {name}")

    try:
        answers = await asyncio.gather(
            *(
                migrate(
                    admin_url=with_database(postgres_url, database=name),
                    services=("account", role),
                    password_files={"account": password_files["account"]},
                )
                for name in names
            ),
            return_exceptions=True,
        )
    finally:
        for name in names:
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.execute(f"DROP ROLE IF EXISTS payflow_{role}")
        await admin.close()

    assert answers == [True] * 6


async def test_a_file_changed_after_it_was_applied_is_refused_by_name(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await migrate(admin_url=empty_url, services=FEW, password_files={})
    release_with(monkeypatch, kyc=[Migration("kyc", 1, "0001_initial.sql", "SELECT 'changed'")])

    with pytest.raises(MigrationError, match=r"^kyc/0001_initial\.sql was changed after .* restore"):
        await migrate(admin_url=empty_url, services=FEW, password_files={})


async def test_a_database_of_a_newer_release_is_refused_before_anything_is_done(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = Migration("kyc", 2, "0002_more.sql", "CREATE TABLE more (id int)")
    release_with(monkeypatch, kyc=[*migrations_of("kyc"), second])
    await migrate(admin_url=empty_url, services=FEW, password_files={})
    monkeypatch.undo()

    with pytest.raises(MigrationError, match=r"newer release of Payflow \(it has kyc/0002_more\.sql\)"):
        await migrate(admin_url=empty_url, services=("account", "kyc", "risk"), password_files={})

    assert await query(empty_url, "SELECT to_regnamespace('risk') AS schema") == [(None,)]


async def test_a_newer_release_adds_what_is_new(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await migrate(admin_url=empty_url, services=FEW, password_files={})
    second = Migration("kyc", 2, "0002_more.sql", "CREATE TABLE more (id int)")
    release_with(monkeypatch, kyc=[*migrations_of("kyc"), second])

    was_empty = await migrate(admin_url=empty_url, services=FEW, password_files={})

    assert not was_empty
    assert await query(empty_url, "SELECT count(*) FROM kyc.more") == [(0,)]


async def test_a_migration_that_fails_leaves_nothing_of_itself(empty_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Migration("kyc", 2, "0002_broken.sql", "CREATE TABLE half (id int); SELECT 1 / 0")
    release_with(monkeypatch, kyc=[*migrations_of("kyc"), broken])

    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(admin_url=empty_url, services=FEW, password_files={})
    monkeypatch.undo()

    assert await query(empty_url, "SELECT to_regclass('kyc.half') AS table") == [(None,)]
    assert not await migrate(admin_url=empty_url, services=FEW, password_files={})


BY_ITSELF = (
    "-- outside a transaction\n"
    "-- Two statements; neither may be in one.\n"
    "DROP INDEX CONCURRENTLY IF EXISTS by_id;\n"
    "CREATE INDEX CONCURRENTLY by_id ON many (id);\n"
)


async def test_an_index_is_made_while_others_write_and_by_one_of_several_that_migrate_at_once(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Migration("kyc", 2, "0002_many.sql", "CREATE TABLE many (id int)")
    release_with(monkeypatch, kyc=[*migrations_of("kyc"), first])
    await migrate(admin_url=empty_url, services=FEW, password_files={})
    release_with(monkeypatch, kyc=[*migrations_of("kyc"), first, Migration("kyc", 3, "0003_by_id.sql", BY_ITSELF)])

    await asyncio.gather(*(migrate(admin_url=empty_url, services=FEW, password_files={}) for _ in range(3)))

    (index,) = await query(empty_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'kyc.by_id'::regclass")
    (path,) = await query(empty_url, "SELECT count(*) FROM payflow_migration.applied WHERE service = 'kyc'")
    assert (index["indisvalid"], path["count"]) == (True, 3)


async def test_a_migration_outside_a_transaction_that_was_left_half_done_is_done_again(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Migration("kyc", 2, "0002_many.sql", "CREATE TABLE many (id int)")
    broken = BY_ITSELF + "SELECT 1 / 0;\n"
    release_with(monkeypatch, kyc=[*migrations_of("kyc"), first, Migration("kyc", 3, "0003_by_id.sql", broken)])
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(admin_url=empty_url, services=FEW, password_files={})
    monkeypatch.undo()
    release_with(monkeypatch, kyc=[*migrations_of("kyc"), first, Migration("kyc", 3, "0003_by_id.sql", BY_ITSELF)])

    await migrate(admin_url=empty_url, services=FEW, password_files={})

    (path,) = await query(empty_url, "SELECT count(*) FROM payflow_migration.applied WHERE service = 'kyc'")
    assert path["count"] == 3


def release_with(monkeypatch: pytest.MonkeyPatch, **changed: list[Migration]) -> None:
    """Another release of Payflow: the same but for these services' files."""
    own = module.migrations_of
    monkeypatch.setattr(module, "migrations_of", lambda service: changed.get(service) or own(service))


@pytest.mark.parametrize("service", ["event_log", *SERVICE_NAMES])
def test_every_service_has_migrations_numbered_without_gaps(service: str) -> None:
    numbers = [migration.number for migration in migrations_of(service)]

    assert numbers == list(range(1, len(numbers) + 1))
    assert numbers


@pytest.mark.parametrize("service", SERVICE_NAMES)
async def test_a_services_role_owns_nothing_and_is_nobody_special(database_url: str, service: str) -> None:
    role = f"payflow_{service}"

    (rights,) = await query(
        database_url,
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls FROM pg_roles WHERE rolname = $1",
        role,
    )
    owned = await query(
        database_url, "SELECT relname FROM pg_class JOIN pg_roles ON relowner = pg_roles.oid WHERE rolname = $1", role
    )
    may_create = await query(
        database_url,
        "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND has_schema_privilege($1, nspname, 'CREATE')",
        role,
    )

    assert not any(rights)
    assert owned == []
    assert may_create == []


@pytest.mark.parametrize("service", SERVICE_NAMES)
async def test_a_services_role_reaches_no_other_services_tables(database_url: str, service: str) -> None:
    reached = await query(
        database_url,
        "SELECT n.nspname || '.' || c.relname AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace"
        " WHERE relkind IN ('r', 'v', 'm', 'p') AND n.nspname = ANY($2) AND n.nspname <> $3 "
        "AND (has_table_privilege($1, c.oid, 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') "
        "OR has_schema_privilege($1, n.oid, 'USAGE'))",
        f"payflow_{service}",
        [*SERVICE_NAMES, "payflow_migration"],
        service,
    )

    assert reached == []


@pytest.mark.parametrize("service", SERVICE_NAMES)
async def test_only_consumers_read_the_event_log_and_nobody_changes_it(database_url: str, service: str) -> None:
    role = f"payflow_{service}"
    (rights,) = await query(
        database_url,
        "SELECT has_any_column_privilege($1, 'event_log.batch', 'INSERT') AS writes, "
        "has_column_privilege($1, 'event_log.batch', 'source', 'INSERT') AS forges, "
        "has_table_privilege($1, 'event_log.batch', 'SELECT') AS reads, "
        "has_table_privilege($1, 'event_log.batch', 'UPDATE, DELETE, TRUNCATE') AS changes, "
        "pg_has_role($1, 'payflow_event_consumer', 'MEMBER') AS is_consumer",
        role,
    )

    assert rights["writes"]
    assert not rights["forges"]
    assert not rights["changes"]
    assert rights["reads"] == rights["is_consumer"]
    assert rights["is_consumer"] == (service in ("risk", "notification", "audit"))


async def test_another_services_table_is_refused_over_a_real_connection(
    database_url: str, password_files: dict[str, Path]
) -> None:
    url = role_url(database_url, "kyc", password_files)

    for statement in (
        "SELECT * FROM account.customers",
        "SELECT * FROM payflow_migration.applied",
        "CREATE TABLE t ()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await query(url, statement)


async def test_a_role_signs_in_with_the_password_of_its_file_and_no_other(
    database_url: str, password_files: dict[str, Path]
) -> None:
    own = await query(role_url(database_url, "kyc", password_files), "SELECT current_user::text")

    assert own == [("payflow_kyc",)]
    with pytest.raises(asyncpg.InvalidPasswordError):
        await query(role_url(database_url, "kyc", {"kyc": password_files["account"]}), "SELECT 1")


async def test_a_password_may_hold_every_sign(postgres_url: str, empty_url: str, tmp_path: Path) -> None:
    service = f"odd{secrets.token_hex(4)}"
    password = 'it\'s \\ "odd" $$ -- ü'
    (tmp_path / "password").write_text(password + "\n")

    try:
        await migrate(admin_url=empty_url, services=(), password_files={})
        await make_role(empty_url, service, tmp_path / "password")
        connection = await asyncpg.connect(empty_url, user=f"payflow_{service}", password=password)
        await connection.close()
    finally:
        await query(empty_url, f"DROP OWNED BY payflow_{service}")
        await query(postgres_url, f"DROP ROLE payflow_{service}")


async def make_role(url: str, service: str, file: Path) -> None:
    connection = await asyncpg.connect(url)
    try:
        await module._ensure_role_and_schema(connection, service, module._read_password(file))
    finally:
        await connection.close()
