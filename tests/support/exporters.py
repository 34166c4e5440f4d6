"""Debian's Prometheus exporters, each on a free port of loopback."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from payflow.run.inspection import owner_url
from tests.support.ports import free_ports
from tests.support.programs import require_program
from tests.support.system import System


@contextmanager
def running_exporter(
    name: str, options: Sequence[str] = (), *, log: Path, environ: Mapping[str, str] | None = None
) -> Iterator[str]:
    """`prometheus-NAME-exporter`; its "host:port" once it answers."""
    package = f"prometheus-{name}-exporter"
    program = require_program(package, package=package)
    (port,) = free_ports(1)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [program, f"--web.listen-address=127.0.0.1:{port}", *options],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(environ or {})},
        )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5):
                    break
            except OSError:
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(15)


@contextmanager
def server_exporters(system: System, logs: Path) -> Iterator[dict[str, str]]:
    """Those of an instance's PostgreSQL and Valkey: "host:port" by job."""
    valkey = system.processes()["valkey"]["url"]
    with (
        running_exporter(
            "postgres", log=logs / "postgres.log", environ={"DATA_SOURCE_NAME": _as_libpq_has_it(system)}
        ) as postgres,
        running_exporter(
            "redis", [f"--redis.addr={valkey}", "--connection-timeout=300ms"], log=logs / "redis.log"
        ) as redis,
    ):
        yield {"postgres": postgres, "redis": redis}


def _as_libpq_has_it(system: System) -> str:
    """The instance's database, the socket's folder as host."""
    base, _, query = owner_url(system.instance.data_dir).partition("?")
    user, _, password = base.removeprefix("postgresql://").split("@")[0].partition(":")
    host = next(part.removeprefix("host=") for part in query.split("&") if part.startswith("host="))
    return f"host={host} user={user} password={password} dbname=payflow sslmode=disable"
