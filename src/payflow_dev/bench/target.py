"""What is driven: an instance of the bench's own, one that runs already, or only an address."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import urlsplit

from payflow.run import control
from payflow.run.embedded.places import remove_server_homes, remove_socket_dir
from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance
from payflow.run.registry import highest_port_offset
from payflow.run.supervisor.environment import external_postgres, with_user
from payflow.run.supervisor.status import InstanceStatus

LOOPBACK: Final = "127.0.0.1"
# Nothing is switched off: the limits still count every request, their figures are only out of reach.
LIMITS: Final = {
    "PAYFLOW_RATE_LIMIT_PER_IP": "100000000/15m",
    "PAYFLOW_RATE_LIMIT_PER_USER": "100000000/15m",
    "PAYFLOW_RATE_LIMIT_LOGIN_PER_IP": "100000000/15m",
}
# An instance of its own is all embedded: never on a database or a data directory that the user's settings name.
_NOT_FOR_OURS: Final = (
    "POSTGRES_URL",
    "POSTGRES_PASSWORD",
    "REDIS_URL",
    "KAFKA_BROKERS",
    "OTLP_ENDPOINT",
    "DATA_DIR",
    "ENV",
    "CONFIG_FILE",
)
# Below the range from which the kernel takes ports for outgoing connections.
_PORTS: Final = range(20_000, 30_000, 20)
_PUBLIC_OFFSET: Final = highest_port_offset() + 1


@dataclass(frozen=True, slots=True)
class Target:
    """Where payments go. `status` is None where only an address is known."""

    host: str
    port: int
    status: InstanceStatus | None

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def refreshed(self) -> InstanceStatus | None:
        """The instance as it is now, with the pids of processes that were started again."""
        return control.running(self.status.instance) if self.status else None


def parse_url(url: str) -> tuple[str, int]:
    """Host and port of `--url`. Raises StartError unless it is this machine's loopback over plain HTTP."""
    parts = urlsplit(url)
    try:
        port = parts.port or 80
    except ValueError:
        raise StartError(f"--url {url} has no valid port.") from None
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/"):
        raise StartError("--url must look like http://127.0.0.1:8080.")
    host = LOOPBACK if parts.hostname == "localhost" else parts.hostname
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(host).is_loopback:
            return host, port
    raise StartError(f"--url {url} is not on this machine: the bench only drives loopback addresses.")


def running_target(*, data_dir: Path | None, url: str | None) -> Target:
    """An instance or address that runs already."""
    status = control.require_running(make_instance(data_dir=data_dir)) if data_dir else None
    host, port = parse_url(url) if url else (LOOPBACK, status.port if status else 0)
    if status is not None and status.port != port:
        raise StartError(f"{data_dir} belongs to the instance at {status.public_url}, not to {url}.")
    return Target(host=host, port=port, status=status)


@contextmanager
def own_target(*options: str, keeps: bool, **settings: str) -> Iterator[Target]:
    """Start an instance on a temporary directory and free ports; stopped and removed at the end unless `keeps`.

    `options` go to `up`, `settings` are names and values of environment variables.
    """
    instance = new_instance()
    with ended_by_sigterm():
        try:
            with settings_for_ours(**settings):
                status = control.start(instance, *options)
            yield Target(host=LOOPBACK, port=instance.port, status=status)
        finally:
            if not keeps:
                remove(instance)


def owner_url(status: InstanceStatus) -> str:
    """The address of the instance's database as its owner, password included."""
    server = next((process for process in status.processes if process.name == "postgres"), None)
    if server is not None:
        password = (status.instance.secrets_dir / "postgres_owner").read_text(encoding="utf-8").strip()
        return with_user(server.url, "postgres", password)
    url = external_postgres()
    if url is None:
        raise StartError("The instance uses a PostgreSQL of its own: set PAYFLOW_POSTGRES_URL as it was set for it.")
    return url


def new_instance() -> Instance:
    """A data directory on a disk and free ports; nothing is started."""
    # /tmp is often memory, where a commit costs nothing; /var/tmp is on a disk.
    base = Path("/var/tmp")  # noqa: S108 - mkdtemp makes a private folder in it
    parent = base if os.access(base, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())
    port_base = _free_ports()
    data_dir = Path(tempfile.mkdtemp(prefix="payflow-bench-", dir=parent))
    return make_instance(data_dir=data_dir, port_base=port_base, port=port_base + _PUBLIC_OFFSET)


def _free_ports() -> int:
    candidates = list(_PORTS)
    random.SystemRandom().shuffle(candidates)
    for base in candidates:
        if all(_is_free(port) for port in range(base + 1, base + _PUBLIC_OFFSET + 1)):
            return base
    raise StartError("No free ports for the bench between 20000 and 30000.")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


@contextmanager
def settings_for_ours(**further: str) -> Iterator[None]:
    """The environment that the instance inherits, completed by `further`; put back afterwards."""
    before = dict(os.environ)
    for name in _NOT_FOR_OURS:
        os.environ.pop(f"PAYFLOW_{name}", None)
        os.environ.pop(f"PAYFLOW_{name}_FILE", None)
    os.environ.update(LIMITS | further)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the bench as Ctrl-C does, so that nothing is left behind."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def remove(instance: Instance) -> None:
    """Stop the instance and remove everything it made; a second Ctrl-C must not leave half of it."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        control.stop(instance)
        remove_socket_dir(instance)
        remove_server_homes(instance)
        shutil.rmtree(instance.data_dir, ignore_errors=True)
    finally:
        signal.signal(signal.SIGINT, before)
