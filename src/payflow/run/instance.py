"""One running Payflow on this machine: where its files are and which ports are its own."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from payflow.platform.settings import SettingsError, find_setting
from payflow.run.errors import StartError
from payflow.run.registry import PORT_BASE, PUBLIC_PORT, Deployable, highest_port_offset

DATA_FORMAT: Final = 1
POSTGRES_MAJOR: Final = 18
MIN_FREE_BYTES: Final = 200 * 1024 * 1024
SERVICE_HOST: Final = "127.0.0.1"
# A Kafka of the instance's own: its first node listens here above the port base, for clients and for controllers.
KAFKA_OFFSET: Final = 21
KAFKA_CONTROLLER_OFFSET: Final = 31
_HIGHEST_OFFSET: Final = 100


def repository_root() -> Path:
    """The folder that holds `payflow` and `src/`; the working directory where the package was installed as a wheel."""
    root = Path(__file__).resolve().parents[3]
    return root if (root / "pyproject.toml").is_file() else Path.cwd()


def default_data_dir() -> Path:
    """$PAYFLOW_DATA_DIR, else `data_dir` of the configuration file, else `.payflow` in the repository."""
    try:
        named = find_setting("data_dir", os.environ)
    except SettingsError as error:
        raise StartError(f"{error}.") from error
    return Path(str(named.value)) if named and named.value else repository_root() / ".payflow"


@dataclass(frozen=True, slots=True)
class Instance:
    """Paths and addresses of one instance. Nothing here touches the disk.

    `host` is where the public port listens; the services' own ports stay on loopback in any case.
    """

    data_dir: Path
    port_base: int = PORT_BASE
    port: int = PUBLIC_PORT
    host: str = "127.0.0.1"

    @property
    def secrets_dir(self) -> Path:
        """Mode 0700: passwords of the database roles, keys, the operators' passwords."""
        return self.data_dir / "secrets"

    @property
    def service_keys_dir(self) -> Path:
        """The key pairs by which services prove to each other who they are."""
        return self.secrets_dir / "services"

    @property
    def operators_file(self) -> Path:
        """The generated passwords of the demo operators, mode 0600."""
        return self.secrets_dir / "operators.txt"

    @property
    def logs_dir(self) -> Path:
        return self.data_dir / "logs"

    @property
    def run_dir(self) -> Path:
        """What exists only while the instance runs."""
        return self.data_dir / "run"

    @property
    def lock_file(self) -> Path:
        return self.data_dir / "lock"

    @property
    def version_file(self) -> Path:
        return self.data_dir / "version"

    @property
    def status_file(self) -> Path:
        return self.run_dir / "status.json"

    @property
    def requests_pipe(self) -> Path:
        """Where a running supervisor takes requests of other commands."""
        return self.run_dir / "requests"

    @property
    def is_loopback(self) -> bool:
        return self.host in ("127.0.0.1", "localhost", "::1")

    @property
    def public_url(self) -> str:
        """Where clients go: both gateways behind one port."""
        return f"http://{self._shown_host}:{self.port}"

    @property
    def _shown_host(self) -> str:
        if self.host in ("127.0.0.1", "0.0.0.0", "::", "::1"):  # noqa: S104 - compared, not bound
            return "localhost"
        return f"[{self.host}]" if ":" in self.host else self.host

    def service_port(self, row: Deployable) -> int:
        return self.port_base + row.port_offset

    def service_url(self, row: Deployable) -> str:
        """The address of one process: always loopback, whatever --host opens to others."""
        return f"http://{SERVICE_HOST}:{self.service_port(row)}"

    def shared_port(self, row: Deployable) -> int | None:
        """The port that a service's copies have in common; None where there is one process."""
        return None if row.shared_offset is None else self.port_base + row.shared_offset

    def callers_url(self, row: Deployable) -> str:
        """The address of a service, as its neighbours use it: of whichever copy takes the connection."""
        return f"http://{SERVICE_HOST}:{self.shared_port(row) or self.service_port(row)}"

    def kafka_ports(self, number: int = 1) -> tuple[int, int]:
        """The ports of a Kafka node: for clients, and for the other nodes' controllers."""
        first = self.port_base + number - 1
        return first + KAFKA_OFFSET, first + KAFKA_CONTROLLER_OFFSET

    @property
    def kafka_password_file(self) -> Path:
        """The password of the instance's own Kafka, mode 0600."""
        return self.secrets_dir / "kafka"

    def log_file(self, name: str) -> Path:
        return self.logs_dir / f"{name}.log"

    def password_file(self, service: str) -> Path:
        """The password of the database role payflow_<service>, mode 0600."""
        return self.secrets_dir / f"postgres_{service}"


def make_instance(
    *, data_dir: Path | None = None, port_base: int = PORT_BASE, port: int = PUBLIC_PORT, host: str = "127.0.0.1"
) -> Instance:
    """Resolve what the user typed. Raises StartError for ports that cannot exist or would meet each other."""
    if not 1 <= port_base <= 65535 - _HIGHEST_OFFSET:
        raise StartError(
            f"--port-base {port_base} leaves no room for the services: choose 1 to {65535 - _HIGHEST_OFFSET}."
        )
    if not 1 <= port <= 65535:
        raise StartError(f"--port {port} is not a port: choose 1 to 65535.")
    last = port_base + highest_port_offset()
    if port_base < port <= last:
        raise StartError(f"--port {port} is one of the services' ports ({port_base + 1} to {last}).")
    path = (data_dir or default_data_dir()).expanduser().absolute()
    return Instance(data_dir=path, port_base=port_base, port=port, host=host)


def command_for(instance: Instance, verb: str) -> str:
    """How a person types a verb for this very instance: with --data-dir where it is not the default one."""
    is_default = instance.data_dir == default_data_dir().absolute()
    return f"./payflow {verb}" if is_default else f"./payflow {verb} --data-dir {shlex.quote(str(instance.data_dir))}"
