"""What `payflow dev prometheus` does: Prometheus with the shipped alerts, on the processes of a running instance."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from payflow.run.errors import StartError
from payflow.run.instance import SERVICE_HOST, repository_root
from payflow.run.registry import SERVICES
from payflow.run.supervisor.sockets import listen
from payflow.run.supervisor.status import InstanceStatus
from payflow_dev.deploy.prometheus import Watched, prometheus_yml

ALERTS: Final = Path("deploy/prometheus/alerts.yml")
_INTERVAL: Final = "5s"


def run(status: InstanceStatus, *, port: int) -> None:
    """Become Prometheus, below the instance's data directory, until Ctrl-C. Raises StartError."""
    program = shutil.which("prometheus")
    if program is None:
        raise StartError("Prometheus is not installed (Debian, Ubuntu: apt-get install prometheus).")
    listen(host=SERVICE_HOST, port=port, option="--port").close()
    folder = Path(status.data_dir) / "prometheus"
    folder.mkdir(mode=0o700, exist_ok=True)
    write_configuration(folder, processes_of(status), own=f"{SERVICE_HOST}:{port}")
    told = f"Prometheus: http://localhost:{port}. It asks every {_INTERVAL}; Ctrl-C stops it."
    print(told, flush=True)
    options = (
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        "--storage.tsdb.retention.time=1d",
        f"--web.listen-address={SERVICE_HOST}:{port}",
        "--log.level=warn",
    )
    os.execv(program, [program, *options])  # noqa: S606 - becomes Prometheus, which then has Ctrl-C


def processes_of(status: InstanceStatus) -> dict[str, str]:
    """Where the metrics of each process are: {"gateway-1": "127.0.0.1:3001"}."""
    ours = {row.service for row in SERVICES}
    return {one.name: one.url.removeprefix("http://") for one in status.processes if one.service in ours}


def write_configuration(folder: Path, processes: Mapping[str, str], *, own: str) -> None:
    """The configuration that ships, for these processes and Prometheus itself, with the alerts that ship beside it."""
    text = prometheus_yml(processes, interval=_INTERVAL, watched=Watched({"prometheus": own}))
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    shutil.copyfile(repository_root() / ALERTS, folder / "alerts.yml")
