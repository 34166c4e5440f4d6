"""The real Alertmanager with the shipped routes, and somebody who listens at the addresses that it sends to."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.support.ports import free_ports
from tests.support.programs import end, require_program
from tests.support.servers import ROOT

CONFIG: Final = ROOT / "deploy" / "alertmanager" / "alertmanager.yml"


class Told(NamedTuple):
    """One alert that somebody was told of: to which address, its name, "firing" or "resolved", its labels, and since
    when it is so."""

    to: str
    name: str
    status: str
    labels: dict[str, str]
    since: datetime


class Listener:
    """Takes what Alertmanager sends to /pages and /tickets."""

    def __init__(self) -> None:
        self.told: list[Told] = []
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                listener.take(self.path.strip("/"), body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def take(self, to: str, body: dict[str, Any]) -> None:
        for alert in body["alerts"]:
            since = datetime.fromisoformat(alert["startsAt" if alert["status"] == "firing" else "endsAt"])
            self.told.append(Told(to, alert["labels"]["alertname"], alert["status"], alert["labels"], since))

    def wait_for(self, wanted: Callable[[Told], bool], *, seconds: float) -> Told:
        """The first such alert. Raises AssertionError when none comes in time."""
        deadline = time.monotonic() + seconds
        while True:
            for told in list(self.told):
                if wanted(told):
                    return told
            assert time.monotonic() < deadline, f"only {self.told}"
            time.sleep(0.1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Alertmanager(NamedTuple):
    """A running one: "host:port", and who listens."""

    address: str
    listener: Listener

    def raise_alert(self, name: str, *, severity: str, **labels: str) -> None:
        """Say that an alert is raised, as Prometheus would."""
        body = json.dumps([{"labels": {"alertname": name, "severity": severity, **labels}}]).encode()
        request = urllib.request.Request(
            f"http://{self.address}/api/v2/alerts", data=body, headers={"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=10):
            pass


@contextmanager
def running_alertmanager() -> Iterator[Alertmanager]:
    """With the shipped file, but for the addresses at its end, and how long it gathers before it tells."""
    program = require_program("prometheus-alertmanager", package="prometheus-alertmanager")
    folder = Path(tempfile.mkdtemp(prefix="pf-alerts-", dir="/tmp"))
    (port,) = free_ports(1)
    listener = Listener()
    text = CONFIG.read_text(encoding="utf-8").replace("127.0.0.1:9095", f"127.0.0.1:{listener.port}")
    text = re.sub(r"group_(wait|interval): \w+", r"group_\1: 1s", text)
    (folder / "alertmanager.yml").write_text(text, encoding="utf-8")
    options = (f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/data", "--cluster.listen-address=")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, *options, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=subprocess.STDOUT
        )
    try:
        _wait_until_ready(port, process, folder / "log")
        yield Alertmanager(f"127.0.0.1:{port}", listener)
    finally:
        end(process)
        listener.close()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_until_ready(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                return
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
