"""Debian's Prometheus exporters, each on a free port of loopback."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from payflow.run.inspection import owner_url
from tests.support.ports import free_ports
from tests.support.programs import end, require_program
from tests.support.system import System

# Debian's exporter tells how far a replica is behind only where it is asked to. A newer one does by itself, and refuses
# a second metric of its name: CloudNativePG's is taken, which the alert reads as well.
_REPLICATION: Final = """
cnpg_pg_replication:
  query: >-
    SELECT CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() <> pg_last_wal_replay_lsn()
    THEN greatest(0, extract(epoch FROM now() - pg_last_xact_replay_timestamp())) ELSE 0 END AS lag
  metrics:
    - lag: {usage: GAUGE, description: How far a replica is behind}
"""


class Exporter:
    """`prometheus-NAME-exporter` on a port of its own: started, stopped, started again."""

    def __init__(
        self, name: str, options: Sequence[str] = (), *, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        package = f"prometheus-{name}-exporter"
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        self._command = [require_program(package, package=package), f"--web.listen-address={self.address}", *options]
        self._environ = {**os.environ, **(environ or {})}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers. Raises AssertionError with its log."""
        with self._log.open("ab") as file:
            process = subprocess.Popen(self._command, stdout=file, stderr=subprocess.STDOUT, env=self._environ)
        self._process = process
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://{self.address}/", timeout=5):
                    return
            except OSError:
                assert process.poll() is None, self._log.read_text()[-3000:]
                assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.05)

    def stop(self) -> None:
        """End it, if it runs."""
        if self._process is not None:
            end(self._process)
            self._process = None


@contextmanager
def running_exporter(
    name: str, options: Sequence[str] = (), *, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[Exporter]:
    """A started one, stopped at the end."""
    exporter = Exporter(name, options, log=log, environ=environ)
    try:
        exporter.start()
        yield exporter
    finally:
        exporter.stop()


@contextmanager
def postgres_exporter(url: str, *, log: Path, is_replica: bool = False) -> Iterator[Exporter]:
    """That of a PostgreSQL at this address, the owner's; of a replica it tells how far behind it is."""
    options = []
    if is_replica:
        queries = log.with_suffix(".yaml")
        queries.write_text(_REPLICATION, encoding="utf-8")
        options.append(f"--extend.query-path={queries}")
    environ = {"DATA_SOURCE_NAME": _as_libpq_has_it(url)}
    with running_exporter("postgres", options, log=log, environ=environ) as exporter:
        yield exporter


@contextmanager
def server_exporters(system: System, logs: Path, *, postgres_url: str | None = None) -> Iterator[dict[str, str]]:
    """Those of an instance's PostgreSQL (its own, unless an address is given) and Valkey: "host:port" by job."""
    valkey = system.processes()["valkey"]["url"]
    options = [f"--redis.addr={valkey}", "--connection-timeout=300ms"]
    with (
        postgres_exporter(postgres_url or owner_url(system.instance.data_dir), log=logs / "postgres.log") as postgres,
        running_exporter("redis", options, log=logs / "redis.log") as redis,
    ):
        yield {"postgres": postgres.address, "redis": redis.address}


def _as_libpq_has_it(url: str) -> str:
    """The database of an address; the host is in its query where it is the folder of a socket."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    host, port = parts.hostname or query["host"], parts.port or query.get("port", "5432")
    return f"host={host} port={port} user={parts.username} password={parts.password} dbname=payflow sslmode=disable"
