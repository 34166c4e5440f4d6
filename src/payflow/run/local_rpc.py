"""Calling services from the command line, with the identity that the data directory or the settings name.

The services are those of the instance that runs on the data directory; PAYFLOW_<SERVICE>_URL names another place, as it
does for the services themselves. Where every process has a container of its own, nothing but the settings says where
they are.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.identity import Signer
from payflow.run.control import require_running, running
from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance
from payflow.run.registry import find
from payflow.run.secrets import COMMAND_LINE, service_keys_dir
from payflow.run.supervisor.environment import setting

C = TypeVar("C")


class LocalServices:
    """Clients of an instance's services, made when asked for."""

    def __init__(self, *, instance: Instance, clients: RpcClients) -> None:
        self._instance = instance
        self._clients = clients

    def client(self, contract: type[C]) -> C:
        """A client of the service that answers this contract."""
        service: Any = getattr(contract, "service", "")
        row = find(service)
        if row is None:
            raise StartError(f"There is no service {service}.")
        url = setting(f"{row.service.upper()}_URL") or self._instance.service_url(row)
        return self._clients.connect(contract, url)


def reachable_instance(data_dir: Path | None) -> Instance:
    """The instance whose services can be called: the running one, else what the settings name.

    Raises StartError where nothing runs and the settings say neither where the gateway is nor where our key is.
    """
    instance = make_instance(data_dir=data_dir)
    found = running(instance)
    if found is not None:
        return found.instance
    if setting("GATEWAY_URL") and setting("SERVICE_KEYS_DIR"):
        return instance
    return require_running(instance).instance


@asynccontextmanager
async def local_services(instance: Instance) -> AsyncIterator[LocalServices]:
    """Connect as the command line. Raises StartError when the data directory's keys cannot be read."""
    try:
        signer = Signer.load(service=COMMAND_LINE, directory=service_keys_dir(instance))
    except OSError as error:
        raise StartError(
            f"{error.filename} cannot be read ({error.strerror}): run as the user who started the instance."
        ) from error
    clients = RpcClients(signer=signer, queue_max=1_000_000)
    try:
        yield LocalServices(instance=instance, clients=clients)
    finally:
        await clients.close()
