"""Forward-only migrations: plain SQL files per service, applied in order, once, by the database's owner.

Each service has a role and a schema of its own (`payflow_account`, `account`); the migration files grant what the
service's role may do and nothing more. The event log's schema is made first.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import structlog

from payflow.platform.pooling import keep_with_role
from payflow.platform.servers import Connector

log = structlog.get_logger(__name__)

# Any constant: it only has to differ from other users of advisory locks in this database.
_LOCK_KEY: Final = 0x5041_5946_4C4F_57
_COLLISIONS_MAX: Final = 12
# As PostgreSQL's own (scram_iterations).
_ITERATIONS: Final = 4096
# Whose role watches the server and belongs to no service.
MONITOR: Final = "monitor"
# The first line of a file whose statements are run one by one, each by itself, as what is done CONCURRENTLY has to be.
# Such a file can be run again from its beginning, wherever it was left.
_OUTSIDE_A_TRANSACTION: Final = "-- outside a transaction\n"
_FILE: Final = re.compile(r"^(\d{4})_[a-z0-9_]+\.sql$")


class MigrationError(Exception):
    """The database cannot be brought to this release's form; the message says why."""


class Migration(msgspec.Struct, frozen=True):
    """One SQL file of one service."""

    service: str
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, so that a changed file is found."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


def migrations_of(service: str) -> list[Migration]:
    """The migration files of a service in order; `event_log` names those of the platform itself."""
    package = "payflow.platform" if service == "event_log" else f"payflow.services.{service}"
    if service == "other_bank":
        package = "payflow_dev.other_bank"
    folder = resources.files(package).joinpath("migrations")
    if not folder.is_dir():
        return []
    found = []
    for file in sorted(folder.iterdir(), key=lambda entry: entry.name):
        match = _FILE.match(file.name)
        if match:
            found.append(Migration(service, int(match.group(1)), file.name, file.read_text(encoding="utf-8")))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise MigrationError(f"{service}: migrations are not numbered 0001, 0002, ... without gaps")
    return found


async def _repeat_on_collision(work: Callable[[], Awaitable[object]]) -> None:
    """Do something about roles again while another database's migration of the same server is at them.

    Roles belong to the whole server and our lock to one database; the catalog tells such a collision by these errors.
    """
    for attempt in range(_COLLISIONS_MAX):
        try:
            await work()
            return
        except (asyncpg.UniqueViolationError, asyncpg.DuplicateObjectError, asyncpg.InternalServerError) as error:
            is_collision = not isinstance(error, asyncpg.InternalServerError) or "concurrently" in str(error)
            if not is_collision or attempt == _COLLISIONS_MAX - 1:
                raise
            await asyncio.sleep(0.02 * (attempt + 1))


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _verifier(password: str) -> str:
    """What the server keeps of a password (SCRAM-SHA-256, RFC 5803), so that no statement has the password itself.

    Servers keep statements' texts (pg_stat_statements, logs), which others may read.
    """
    if not password.isascii():
        return _literal(
            password
        )  # The server prepares other letters by SASLprep, which the library here does not have.
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    kept, stored_text, server_text = (base64.b64encode(part).decode() for part in (salt, stored, server))
    return _literal(f"SCRAM-SHA-256${_ITERATIONS}:{kept}${stored_text}:{server_text}")


def _read_password(file: str | Path) -> str:
    return Path(file).read_text(encoding="utf-8").strip()


async def _ensure_role_and_schema(connection: asyncpg.Connection[Any], service: str, password: str | None) -> None:
    role = f"payflow_{service}"
    exists = await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role)
    if not exists:
        await connection.execute(f"CREATE ROLE {role} LOGIN")
    if password is not None:
        await connection.execute(f"ALTER ROLE {role} PASSWORD {_verifier(password)}")
    await keep_with_role(connection, role=role, schema=service)
    await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {service}")
    await connection.execute(f"GRANT USAGE ON SCHEMA {service} TO {role}")
    await connection.execute("GRANT USAGE ON SCHEMA event_log TO " + role)
    # Not `source` and `position`: who wrote a batch is the database's word, and its place is number_batches'.
    await connection.execute("GRANT INSERT (types, events, event_count) ON event_log.batch TO " + role)


async def _apply(connection: asyncpg.Connection[Any], migration: Migration) -> bool:
    known = await connection.fetchrow(
        "SELECT checksum FROM payflow_migration.applied WHERE service = $1 AND number = $2",
        migration.service,
        migration.number,
    )
    if known is not None:
        if known["checksum"] != migration.checksum:
            raise MigrationError(
                f"{migration.service}/{migration.name} was changed after it had been applied: "
                "restore that release's file, or use another data directory."
            )
        return False
    if migration.sql.startswith(_OUTSIDE_A_TRANSACTION):
        await connection.execute(f"SET search_path = {migration.service}")
        for statement in migration.sql.split(";\n")[:-1]:
            await connection.execute(statement)
        await connection.execute("RESET search_path")
        await _note(connection, migration)
        return True
    async with connection.transaction():
        await connection.execute(f"SET LOCAL search_path = {migration.service}")
        await connection.execute(migration.sql)
        await _note(connection, migration)
    return True


async def _note(connection: asyncpg.Connection[Any], migration: Migration) -> None:
    await connection.execute(
        "INSERT INTO payflow_migration.applied (service, number, name, checksum) VALUES ($1, $2, $3, $4)",
        migration.service,
        migration.number,
        migration.name,
        migration.checksum,
    )


async def _refuse_newer(connection: asyncpg.Connection[Any], found: Sequence[Migration]) -> None:
    known = {(migration.service, migration.number) for migration in found}
    services = {migration.service for migration in found}
    for row in await connection.fetch("SELECT service, number, name FROM payflow_migration.applied"):
        if row["service"] in services and (row["service"], row["number"]) not in known:
            raise MigrationError(
                f"The database is from a newer release of Payflow (it has {row['service']}/{row['name']}). "
                "Start that release, or use another data directory."
            )


async def _wait_for_our_turn(connection: asyncpg.Connection[Any]) -> None:
    """Return once no other process migrates this database; the lock ends with the connection.

    Not pg_advisory_lock: whoever waits in a statement is waited for by what the holder does CONCURRENTLY. The holder is
    another program, and nothing in this one could be told when it has finished.
    """
    while True:
        if await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):
            return
        await asyncio.sleep(0.1)


async def migrate(*, admin_url: str, services: Sequence[str], password_files: Mapping[str, str | Path]) -> bool:
    """Bring the database to this release's form; returns True when it was empty before.

    `admin_url` connects as the database's owner, who may create roles. `password_files` maps a service to the file
    with its role's password; a service without one keeps the password that its role has. Where there is one for
    `monitor`, there is a role payflow_monitor for whoever watches the server.
    Safe to run from several processes at once. Raises MigrationError, or asyncpg's errors when it cannot connect.
    """
    passwords = {service: _read_password(file) for service, file in password_files.items()}
    connection = await Connector(admin_url)()
    try:
        await _wait_for_our_turn(connection)
        is_first = not await connection.fetchval("SELECT to_regnamespace('payflow_migration') IS NOT NULL")
        await connection.execute("CREATE SCHEMA IF NOT EXISTS payflow_migration")
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS payflow_migration.applied (service text, number int, name text NOT NULL, "
            "checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (service, number))"
        )
        found = [migration for service in ("event_log", *services) for migration in migrations_of(service)]
        await _refuse_newer(connection, found)
        await connection.execute("CREATE SCHEMA IF NOT EXISTS event_log")
        for migration in found:
            if migration.service == "event_log":
                await _repeat_on_collision(partial(_apply, connection, migration))
        for service in services:
            ensure = partial(_ensure_role_and_schema, connection, service, passwords.get(service))
            await _repeat_on_collision(ensure)
        for migration in found:
            if migration.service != "event_log":
                await _repeat_on_collision(partial(_apply, connection, migration))
        if MONITOR in passwords:
            await _repeat_on_collision(partial(_ensure_monitor, connection, passwords[MONITOR]))
    finally:
        await connection.close()
    return is_first


async def _ensure_monitor(connection: asyncpg.Connection[Any], password: str) -> None:
    """The role that watches the server: its figures, and no table of anybody's."""
    role = f"payflow_{MONITOR}"
    if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", role):
        await connection.execute(f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 5")
    await connection.execute(f"ALTER ROLE {role} PASSWORD {_verifier(password)}")
    if await connection.fetchval("SELECT pg_has_role($1, 'pg_monitor', 'MEMBER')", role):
        return
    try:
        await connection.execute(f"GRANT pg_monitor TO {role}")
    except asyncpg.InsufficientPrivilegeError:
        # An owner that is no superuser may not; nothing but the exporter's figures hangs on it.
        log.warning("migrate.monitor_sees_little", to_run=f"GRANT pg_monitor TO {role}")
