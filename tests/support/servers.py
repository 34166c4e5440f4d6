"""A real PostgreSQL and a real Valkey for one test run, in a temporary directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def server(kind: str, data_dir: Path) -> Iterator[str]:
    """Start one embedded server; yields its address, which may not answer yet. Stops it at the end."""
    log = (data_dir / f"{kind}.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.server_process", kind, str(data_dir), str(os.getpid())],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"},
    )
    assert process.stdout is not None
    try:
        address = process.stdout.readline().decode().strip()
        assert address, (data_dir / f"{kind}.log").read_text()
        yield address
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def with_database(url: str, *, database: str, user: str | None = None, password: str | None = None) -> str:
    """The same server's address with another database, and another user where given."""
    parts = urlsplit(url)
    netloc = parts.netloc if user is None else f"{user}:{password}@"
    return urlunsplit(parts._replace(path=f"/{database}", netloc=netloc))
