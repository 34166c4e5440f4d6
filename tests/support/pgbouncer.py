"""A real PgBouncer before a PostgreSQL, one server connection to a transaction unless told otherwise."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from payflow.run.embedded.user import server_user
from tests.support.ports import free_ports, wait_for_port
from tests.support.postgres_node import OWNER, PASSWORD, as_user
from tests.support.programs import require_program

_CONFIGURATION = """\
[databases]
payflow = host=127.0.0.1 port={server} dbname=payflow
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users.txt
auth_user = {owner}
auth_query = SELECT usename, passwd FROM pg_shadow WHERE usename = $1
pool_mode = {mode}
ignore_startup_parameters = {ignored}
default_pool_size = {pool_size}
max_client_conn = 300
server_login_retry = 1
admin_users = postgres
logfile = {folder}/pgbouncer.log
"""


@contextmanager
def running_pgbouncer(
    folder: Path, *, server: int, pool_size: int, mode: str = "transaction", ignored: str = ""
) -> Iterator[int]:
    """Start it; yields its port. It looks passwords up in the server. `pool_size`: server connections of each role."""
    program = require_program("pgbouncer", package="pgbouncer")
    (port,) = free_ports(1)
    place = folder / f"pgbouncer-{port}"
    place.mkdir()
    place.chmod(0o777)
    (place / "users.txt").write_text(f'"{OWNER}" "{PASSWORD}"\n')
    configuration = place / "pgbouncer.ini"
    configuration.write_text(
        _CONFIGURATION.format(
            server=server, port=port, folder=place, pool_size=pool_size, owner=OWNER, mode=mode, ignored=ignored
        )
    )
    process = subprocess.Popen(
        [program, "--quiet", configuration], cwd="/", stderr=subprocess.DEVNULL, **as_user(server_user())
    )
    try:
        wait_for_port(port, seconds=10, check=lambda: _must_run(process, place))
        yield port
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _must_run(process: subprocess.Popen[bytes], place: Path) -> None:
    log = place / "pgbouncer.log"
    assert process.poll() is None, log.read_text() if log.exists() else "pgbouncer ended at once"
