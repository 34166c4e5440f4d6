"""The yardstick: pgbench TPC-B, prepared, in a database of its own on the instance's PostgreSQL server."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

import asyncpg
import msgspec

from payflow.run.errors import StartError

SCALE: Final = 20
CLIENTS: Final = (8, 16, 32)
DATABASE: Final = "payflow_bench_tpcb"
_INITIALISE_S: Final = 180.0
_GRACE_S: Final = 60.0
_POLL_S: Final = 0.2

_TPS: Final = re.compile(r"^tps = ([0-9.]+)", re.MULTILINE)
_LATENCY: Final = re.compile(r"^latency average = ([0-9.]+) ms", re.MULTILINE)
_PROCESSED: Final = re.compile(r"^number of transactions actually processed: ([0-9]+)", re.MULTILINE)
_FAILED: Final = re.compile(r"^number of failed transactions: ([0-9]+)", re.MULTILINE)


class PgbenchRun(msgspec.Struct, frozen=True, kw_only=True):
    """One run: transactions per second (without the time to connect) and their mean latency."""

    clients: int
    tps: float
    latency_ms: float
    transactions: int
    failed: int


def parse(output: str, *, clients: int) -> PgbenchRun:
    """Read pgbench's report. Raises ValueError where it has no figures."""
    tps, latency, processed = (pattern.search(output) for pattern in (_TPS, _LATENCY, _PROCESSED))
    if tps is None or latency is None or processed is None:
        raise ValueError(f"pgbench reported no figures: {output.strip()[-300:]}")
    failed = _FAILED.search(output)
    return PgbenchRun(
        clients=clients,
        tps=float(tps.group(1)),
        latency_ms=float(latency.group(1)),
        transactions=int(processed.group(1)),
        failed=int(failed.group(1)) if failed else 0,
    )


def in_database(url: str, database: str) -> str:
    """A server's address with another database."""
    return urlunsplit(urlsplit(url)._replace(path=f"/{database}"))


def environment_of(url: str) -> dict[str, str]:
    """What libpq's programs must know to reach this address; the password stays out of the list of processes."""
    parts = urlsplit(url)
    query = {name: values[0] for name, values in parse_qs(parts.query).items()}
    known = {
        "PGHOST": parts.hostname or query.get("host", ""),
        "PGPORT": str(parts.port or query.get("port", "")),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
    }
    return {name: value for name, value in known.items() if value}


@dataclass(frozen=True, slots=True)
class Pgbench:
    """pgbench on one server. `tick` is called several times a second while it runs, for whoever shows progress."""

    program: Path
    owner_url: str
    tick: Callable[[], None]
    scale: int = SCALE

    async def create_database(self) -> None:
        """Make the database anew."""
        connection = await asyncpg.connect(in_database(self.owner_url, "postgres"))
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        finally:
            await connection.close()

    async def drop_database(self) -> None:
        """Leave nothing behind in an instance that goes on."""
        connection = await asyncpg.connect(in_database(self.owner_url, "postgres"))
        try:
            await connection.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        finally:
            await connection.close()

    def initialise(self) -> None:
        """Fill TPC-B's tables."""
        self._run(["--initialize", "--quiet", f"--scale={self.scale}"], seconds=_INITIALISE_S)

    def run(self, *, clients: int, seconds: float) -> PgbenchRun:
        """One run. As by default, it vacuums the small tables first: each run starts alike."""
        arguments = ["--protocol=prepared", f"--client={clients}", f"--jobs={min(clients, os.cpu_count() or 1)}"]
        output = self._run([*arguments, f"--time={max(1, round(seconds))}"], seconds=seconds + _GRACE_S)
        return parse(output, clients=clients)

    def best(self, *, seconds: float, candidates: Sequence[int] = CLIENTS) -> list[PgbenchRun]:
        """A run with each number of clients, the fastest one first."""
        runs = [self.run(clients=clients, seconds=seconds) for clients in candidates]
        return sorted(runs, key=lambda run: -run.tps)

    def _run(self, arguments: list[str], *, seconds: float) -> str:
        environ = {"PATH": "/usr/bin:/bin", "LANG": "C", **environment_of(self.owner_url)}
        process = subprocess.Popen(
            [str(self.program), *arguments, DATABASE],
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + seconds
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=_POLL_S)
                    break
                except subprocess.TimeoutExpired:
                    self.tick()
                    if time.monotonic() > deadline:
                        raise StartError(f"pgbench did not end within {seconds:.0f} s.") from None
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise StartError(f"pgbench failed: {output.strip()[-300:]}")
        return output
