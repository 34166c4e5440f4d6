"""The status file: what the supervisor says of itself and its children, for every other command to read."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from payflow.run.datadir import lock_holder, write_atomically
from payflow.run.instance import Instance
from payflow.run.supervisor.children import Child, Stage
from payflow.run.supervisor.requests import RestartProgress


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessStatus:
    """One process. `kind` is service or server; `state` is healthy, starting, hung, waiting (for a restart)."""

    name: str
    service: str
    kind: str
    pid: int | None
    url: str
    state: str
    restarts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceStatus:
    """A whole instance. `state` is starting, ready or stopping; `restart` is the last rolling restart, or this one."""

    pid: int
    state: str
    started_at: str
    data_dir: str
    host: str
    port: int
    port_base: int
    public_url: str
    processes: tuple[ProcessStatus, ...]
    restart: RestartProgress | None = None

    @property
    def instance(self) -> Instance:
        """Paths and addresses of what runs, whatever options this command was given."""
        return Instance(data_dir=Path(self.data_dir), port_base=self.port_base, port=self.port, host=self.host)


def write_status(
    *,
    instance: Instance,
    state: str,
    started_at: datetime,
    children: Iterable[Child],
    restart: RestartProgress | None = None,
) -> InstanceStatus:
    """Replace the status file; returns what it says."""
    status = InstanceStatus(
        pid=os.getpid(),
        state=state,
        started_at=started_at.astimezone(UTC).isoformat(timespec="milliseconds"),
        data_dir=str(instance.data_dir),
        host=instance.host,
        port=instance.port,
        port_base=instance.port_base,
        public_url=instance.public_url,
        processes=tuple(_status_of(child) for child in children),
        restart=restart,
    )
    write_atomically(instance.status_file, json.dumps(asdict(status)) + "\n")
    return status


def read_status(instance: Instance) -> InstanceStatus | None:
    """What the running supervisor last wrote; None when none runs, whatever an old file says."""
    holder = lock_holder(instance)
    if holder is None:
        return None
    try:
        found: dict[str, Any] = json.loads(instance.status_file.read_text())
    except (FileNotFoundError, ValueError):
        return None
    if found.get("pid") != holder:
        return None
    processes = tuple(ProcessStatus(**process) for process in found.pop("processes"))
    restart = found.pop("restart", None)
    return InstanceStatus(**found, processes=processes, restart=None if restart is None else RestartProgress(**restart))


def _status_of(child: Child) -> ProcessStatus:
    return ProcessStatus(
        name=child.name,
        service=child.service,
        kind="server" if child.stage is Stage.SERVER else "service",
        pid=child.pid,
        url=child.url,
        state=child.state,
        restarts=child.restarts,
    )
