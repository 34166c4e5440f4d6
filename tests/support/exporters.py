"""Debian's Prometheus exporters, each on a free port of loopback."""

from __future__ import annotations

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.ports import free_ports
from tests.support.programs import require_program


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
