"""The real Prometheus, which scrapes what a test tells it to and answers queries."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from payflow_dev.deploy.prometheus import Watched, prometheus_yml
from tests.support.ports import free_ports
from tests.support.programs import end, require_program
from tests.support.servers import ROOT

FOLDER: Final = ROOT / "deploy" / "prometheus"
INTERVAL_S: Final = 1
NOTHING_ELSE: Final = Watched({})


class Prometheus:
    """A running one."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.port = port
        self._process = process
        self._log = log

    def query(self, text: str) -> list[dict[str, Any]]:
        """The series that a query gives now. Raises AssertionError with Prometheus's words for a wrong query."""
        return list(self._ask("query", query=text)["result"])

    def value(self, text: str) -> float:
        """The value of a query that gives one series."""
        (series,) = self.query(text)
        return float(series["value"][1])

    def metadata(self) -> set[str]:
        """The names of all metrics that were scraped, as their type lines say."""
        return set(self._ask("metadata"))

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that are pending or firing."""
        return list(self._ask("alerts")["alerts"])

    def wait_until(self, text: str, *, seconds: float = 60) -> None:
        """Return when a query gives something. Raises AssertionError."""
        deadline = time.monotonic() + seconds
        while not self.query(text):
            assert time.monotonic() < deadline, f"nothing for {text}"
            time.sleep(0.3)

    def wait_until_ready(self, *, seconds: float) -> None:
        """Return when it can be queried. Raises AssertionError with its log when it has ended or takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=5):
                    return
            except OSError:
                assert self._process.poll() is None, self._log.read_text()[-3000:]
                assert time.monotonic() < deadline, self._log.read_text()[-3000:]
            time.sleep(0.05)

    def _ask(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                return json.loads(response.read())["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error


@contextmanager
def running_prometheus(
    processes: Mapping[str, str], *, watched: Watched = NOTHING_ELSE, patience: str = ""
) -> Iterator[Prometheus]:
    """A Prometheus with the shipped alerts that scrapes these ("host:port" by name) each second.

    `patience`: how long a condition holds before its alert fires, in place of each alert's own.
    """
    program = require_program("prometheus", package="prometheus")
    folder = Path(tempfile.mkdtemp(prefix="pf-prom-", dir="/tmp"))
    (port,) = free_ports(1)
    text = prometheus_yml(processes, interval=f"{INTERVAL_S}s", watched=watched)
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    alerts = (FOLDER / "alerts.yml").read_text(encoding="utf-8")
    if patience:
        alerts = re.sub(r"(?m)^(\s+for: )\w+$", rf"\g<1>{patience}", alerts)
    (folder / "alerts.yml").write_text(alerts, encoding="utf-8")
    options = (f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    prometheus = Prometheus(port, process, folder / "log")
    try:
        prometheus.wait_until_ready(seconds=30)
        yield prometheus
    finally:
        end(process)
        shutil.rmtree(folder, ignore_errors=True)
