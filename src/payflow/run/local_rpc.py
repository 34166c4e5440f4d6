"""Calling a running instance's services from the command line, with the identity that its data directory holds."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.identity import Signer
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.registry import find
from payflow.run.secrets import COMMAND_LINE, service_keys_dir

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
        return self._clients.connect(contract, self._instance.service_url(row))


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
