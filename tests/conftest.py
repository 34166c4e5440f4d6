"""Fixtures that every test may use: one real PostgreSQL and one real Valkey per run, a fresh database per module."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from payflow.platform.crypto import ColumnCipher
from payflow.platform.migrate import migrate
from payflow.platform.postgres import Database
from payflow.run.embedded.postgres import wait_until_ready
from payflow.run.registry import OTHER_BANK, SERVICES
from tests.support.postgres_node import PostgresNode, running_postgres, running_standby, server_folder
from tests.support.servers import server, with_database

TEMPLATE = "payflow_template"
SERVICE_NAMES = sorted({row.service for row in (*SERVICES, OTHER_BANK)})

ConnectAs = Callable[[str], Awaitable[Database]]

# What one worker runs alone, in one go: fault runs put the machine under load and watch deadlines, one at a time; and
# the journeys share an instance, which each worker that has any starts for itself.
TOGETHER = ("faults", "journeys")
# Files of these folders that have an instance of their own, or none.
APART = (
    "faults/test_closed_binaries.py",
    "faults/test_production_mode.py",
    "journeys/test_channels.py",
    "journeys/test_new_service.py",
)
# Each test of these starts an instance of its own.
TEST_BY_TEST = ("faults/test_supervisor.py", "faults/test_supervisor_starts.py")
# What takes longest comes first, so that no worker is left alone with it at the end. A worker that has nothing else to
# do is given what comes last: many small things.
FIRST = (
    "stack/test_tutorial.py",
    "stack/observability/test_alerts_of_payments.py",
    "stack/observability/test_alerts_with_kafka.py",
    "stack/observability/test_alerts_of_servers.py",
    "stack/observability/test_alerts_live.py",
    "stack/observability/test_alerts_of_waiting.py",
    "stack/test_kafka_faults.py",
    "stack/test_kafka_three_nodes.py",
    "stack/observability/test_dashboards.py",
    "stack/test_kafka_security.py",
    "stack/test_kafka_group.py",
    "stack/data/test_disk_that_halts.py",
    "faults",
    "journeys",
    "journeys/test_new_service.py",
    "simulation",
    "faults/test_production_mode.py",
    "journeys/test_channels.py",
    "ports",
    "security",
    "faults/test_supervisor.py",
    "faults/test_supervisor_starts.py",
    "unit/test_launcher.py",
    "unit",
    "architecture",
    "faults/test_closed_binaries.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put first what takes longest."""
    items.sort(key=lambda item: _rank(_scope(item.nodeid)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Say what one worker runs alone, where several share the run: see `_scope`."""
    from xdist.scheduler import LoadScopeScheduling

    class ByScope(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope(nodeid)

    return ByScope(config, log)


# When each worker last finished a test, by the worker's name.
_done_at: dict[str, float] = {}


def pytest_runtest_logreport(report: Any) -> None:
    """Note when each worker was last heard of."""
    node = getattr(report, "node", None)
    if node is not None:
        _done_at[node.gateway.id] = time.monotonic()


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Tell how long each worker had nothing to do at the end: what comes first is chosen in FIRST."""
    if _done_at:
        idle = (f"{name} {max(_done_at.values()) - at:.0f} s" for name, at in sorted(_done_at.items()))
        terminalreporter.write_line(f"idle at the end: {', '.join(idle)}")


def _scope(nodeid: str) -> str:
    """What is run by one worker, in one go: a file, as a rule."""
    path = nodeid.removeprefix("tests/").split("::", 1)[0]
    folder = path.split("/", 1)[0]
    if path in TEST_BY_TEST:
        return nodeid.removeprefix("tests/")
    return folder if folder in TOGETHER and path not in APART else path


def _rank(scope: str) -> int:
    path = scope.split("::", 1)[0]
    return next((FIRST.index(name) for name in (path, path.split("/", 1)[0]) if name in FIRST), len(FIRST))


@pytest.fixture(scope="session")
def server_dir() -> Iterator[Path]:
    """A directory for the run's servers; short, because sockets live in it."""
    path = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
    path.chmod(0o755)
    (path / "secrets").mkdir(mode=0o700)
    (path / "run").mkdir()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="session")
def password_files(server_dir: Path) -> dict[str, Path]:
    """A file with a generated password for each service's database role."""
    files = {}
    for service in SERVICE_NAMES:
        files[service] = server_dir / "secrets" / f"postgres_{service}"
        files[service].write_text(secrets.token_urlsafe(16))
    return files


@pytest.fixture(scope="session")
def postgres_url(server_dir: Path, password_files: dict[str, Path]) -> Iterator[str]:
    """The owner's address of a real PostgreSQL with a migrated template database."""
    with server("postgres", server_dir) as url:
        asyncio.run(_make_template(url, password_files))
        yield url


async def _make_template(url: str, password_files: dict[str, Path]) -> None:
    await wait_until_ready(url=url, seconds=30)
    connection = await asyncpg.connect(url)
    # Nobody cuts this server's power: what must outlive that is tested on instances, which write as production does.
    await connection.execute("ALTER SYSTEM SET fsync = off")
    await connection.execute("SELECT pg_reload_conf()")
    await connection.execute(f"CREATE DATABASE {TEMPLATE}")
    await connection.close()
    await migrate(
        admin_url=with_database(url, database=TEMPLATE), services=SERVICE_NAMES, password_files=password_files
    )


@pytest.fixture(scope="session")
def valkey_url(server_dir: Path) -> Iterator[str]:
    """The address of a real Valkey."""
    # A directory of its own: starting a server clears what a killed one left behind in its directory.
    path = server_dir / "v"
    path.mkdir(mode=0o755)
    (path / "secrets").mkdir(mode=0o700)
    (path / "run").mkdir()
    with server("valkey", path) as url:
        yield url


@pytest.fixture(scope="module")
async def database_url(postgres_url: str) -> AsyncIterator[str]:
    """The owner's address of a fresh, migrated database of this module's own."""
    name = f"test_{os.getpid()}_{secrets.token_hex(4)}"
    admin = await asyncpg.connect(postgres_url)
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    yield with_database(postgres_url, database=name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


def role_url(database_url: str, service: str, password_files: dict[str, Path]) -> str:
    """The module's database as a service's own role."""
    password = password_files[service].read_text()
    name = database_url.split("?")[0].rsplit("/", 1)[1]
    return with_database(database_url, database=name, user=f"payflow_{service}", password=password)


@pytest.fixture(scope="module")
async def connect_as(database_url: str, password_files: dict[str, Path]) -> AsyncIterator[ConnectAs]:
    """`await connect_as("account")`: the module's database as that service's role, with that service's schema."""
    opened: list[Database] = []

    async def connect(service: str) -> Database:
        database = await Database.connect(
            url=role_url(database_url, service, password_files), pool_size=4, application="test", schema=service
        )
        opened.append(database)
        return database

    yield connect
    for database in opened:
        await database.close()


@pytest.fixture(scope="session")
def cipher() -> ColumnCipher:
    """A cipher with a key of this run's own."""
    return ColumnCipher(keys={"test": secrets.token_bytes(32)}, active="test")


@pytest.fixture(scope="module")
def primary() -> Iterator[PostgresNode]:
    """A PostgreSQL of the module's own."""
    with server_folder() as folder, running_postgres(folder) as node:
        yield node


@pytest.fixture(scope="module")
def replica(primary: PostgresNode) -> Iterator[PostgresNode]:
    """A hot standby of it."""
    with running_standby(primary) as node:
        yield node
