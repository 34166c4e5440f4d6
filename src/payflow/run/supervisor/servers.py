"""Which servers an instance brings itself, and which the user's settings name instead."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from payflow.run.embedded import postgres, valkey
from payflow.run.embedded.places import existing_postgres_home, socket_dir
from payflow.run.embedded.user import ServerUser, server_user
from payflow.run.errors import StartError
from payflow.run.instance import Instance
from payflow.run.supervisor.environment import (
    Backends,
    direct_postgres,
    is_production,
    pooled_postgres,
    replica_postgres,
    setting,
)

READY_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Server:
    """An embedded server as the supervisor needs it: how it runs, and how its readiness is awaited in a task."""

    name: str
    url: str
    run: Callable[..., Any]
    stop_signal: signal.Signals
    wait: Callable[[], None]


class Broker(NamedTuple):
    """A Kafka of the instance's own, and the settings by which services use it."""

    server: Server
    settings: Mapping[str, str]


PrepareBroker = Callable[[Instance, ServerUser | None], Broker]


class MakesBroker(Protocol):
    """Makes a Kafka of the instance's own. `readers`: how many processes at most share the events of a consumer."""

    def __call__(self, instance: Instance, user: ServerUser | None, /, *, readers: int) -> Broker: ...


def prepare_servers(
    instance: Instance, *, prepare_broker: PrepareBroker | None = None
) -> tuple[list[Server], Backends]:
    """The embedded servers to start, none where the user has all, and the addresses of all.

    Raises StartError in production, where nothing is embedded, and when a program or a place is missing.
    """
    owner_url, redis_url = pooled_postgres(), setting("REDIS_URL")
    backends = partial(
        Backends, postgres_direct_url=direct_postgres() or "", postgres_replica_url=replica_postgres() or ""
    )
    if owner_url and redis_url and prepare_broker is None:
        return [], backends(postgres_owner_url=owner_url, redis_url=redis_url)
    if is_production():
        missing = "PAYFLOW_REDIS_URL" if owner_url else "PAYFLOW_POSTGRES_URL"
        raise StartError(f"PAYFLOW_ENV=production uses no embedded server: set {missing}.")
    user = server_user(owned=existing_postgres_home(instance))
    sockets = socket_dir(instance, user)
    servers = []
    broker = None if prepare_broker is None else prepare_broker(instance, user)
    if broker is not None:
        # The slowest to start comes first.
        servers.append(broker.server)
    if owner_url is None:
        database = postgres.EmbeddedPostgres.prepare(instance=instance, sockets=sockets, user=user)
        owner_url = database.owner_url()
        servers.append(_postgres(database))
    if redis_url is None:
        cache = valkey.EmbeddedValkey.prepare(sockets=sockets, user=user)
        redis_url = cache.url()
        wait = partial(valkey.wait_until_ready, path=cache.socket_path, seconds=READY_S)
        servers.append(Server("valkey", redis_url, cache.run, signal.SIGTERM, wait))
    kafka = {} if broker is None else broker.settings
    return servers, backends(postgres_owner_url=owner_url, redis_url=redis_url, kafka=kafka)


def _postgres(database: postgres.EmbeddedPostgres) -> Server:
    # SIGINT is PostgreSQL's fast shutdown: sessions are ended, and the data is left clean.
    wait = partial(_wait_for_postgres, database.owner_url(database="postgres"))
    return Server("postgres", database.url(), database.run, signal.SIGINT, wait)


def _wait_for_postgres(url: str) -> None:
    async def wait() -> None:
        await postgres.wait_until_ready(url=url, seconds=READY_S)
        await postgres.ensure_database(owner_url=url)

    asyncio.run(wait())
