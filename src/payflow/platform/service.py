"""What an `app.py` gets and gives: a Runtime to wire from, and the Service that it wires."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import msgspec
import structlog

from payflow.kernel.clock import Clock, Ids
from payflow.kernel.envelope import Event
from payflow.kernel.errors import PayflowError
from payflow.platform.clock import SharedClock
from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Consumer, EventHandler, Outbox
from payflow.platform.eventlog.kafka.config import Kafka, kafka_of
from payflow.platform.eventlog.lag import EventLag, wanted_types
from payflow.platform.eventlog.rests import REST_MIN_S
from payflow.platform.http.asgi import ASGIApp
from payflow.platform.http.health import Check
from payflow.platform.ids import UuidV7
from payflow.platform.pooling import as_user_of
from payflow.platform.postgres import Database
from payflow.platform.replica import REPLICA_TIMEOUT_S, Reads, ReplicaWatch
from payflow.platform.rpc import RpcClients
from payflow.platform.rpc.identity import Signer
from payflow.platform.settings import CommonSettings, SettingsError, read_settings
from payflow.platform.valkey import Valkey, connect_valkey, ping_valkey

log = structlog.get_logger(__name__)

C = TypeVar("C")
S = TypeVar("S")
Settings = TypeVar("Settings", bound=msgspec.Struct)


class EventConsumer(Protocol):
    """The reading side of the event log, wherever that is."""

    async def run(self) -> None:
        """Consume until cancelled."""
        ...

    async def is_reading(self) -> bool:
        """A health check: False while the consumer cannot go on."""
        ...


@dataclass
class Service:
    """What a process serves.

    `implementations`: pairs of a contract and the object that implements it. `app`: further routes (the gateway's
    public API, the partner bank's inbound rail). `required`: the dependencies without which no payment can be made.
    `bounds_own_body`: paths of `app` that read long bodies piece by piece, with a limit of their own.
    `is_full`: whether a further request of `app`, behind so many that are coming, would be refused at once; then it
    is, at the connection.
    `background`: coroutine functions that run until the process stops; one that ends with an error is begun again.
    """

    implementations: list[tuple[type[Any], object]] = field(default_factory=list)
    app: ASGIApp | None = None
    checks: dict[str, Check] = field(default_factory=dict)
    required: set[str] = field(default_factory=set)
    background: dict[str, Callable[[], Awaitable[None]]] = field(default_factory=dict)
    is_public: bool = False
    bounds_own_body: frozenset[str] = frozenset()
    is_full: Callable[[int], bool] | None = None


class Runtime:
    """A process's settings and drivers, made when first asked for and closed at the end."""

    def __init__(self, *, service: str, instance: str, environ: Mapping[str, str]) -> None:
        self.service = service
        self.instance = instance
        self.environ = environ
        self._shared_clock = SharedClock()
        self.clock: Clock = self._shared_clock
        self.ids: Ids = UuidV7()
        self._closers: list[Callable[[], Awaitable[None]]] = []
        # Background duties of what was wired, beside the service's own.
        self.duties: dict[str, Callable[[], Awaitable[None]]] = {}

    def settings(self, cls: type[Settings]) -> Settings:
        """The service's settings. Raises SettingsError."""
        return read_settings(cls, self.environ)

    @cached_property
    def common(self) -> CommonSettings:
        """The settings that every service has."""
        return self.settings(CommonSettings)

    async def database(self) -> Database:
        """The service's own schema, as its own role; its clock becomes the process's.

        Raises SettingsError when no database is named, or PgBouncer's sessions cannot be the service's.
        """
        database = await Database.connect(
            url=self.required_setting("postgres_url"),
            password=self.common.postgres_password,
            pool_size=self.common.postgres_pool_size,
            application=f"payflow-{self.instance}",
            schema=self.service,
            pooling=self.common.postgres_pooling,
        )
        self.on_close(database.close)
        if self.common.postgres_pooling == "transaction" and not await database.keeps_search_path(self.service):
            raise SettingsError(
                f"The role payflow_{self.service} lacks what its sessions need behind PgBouncer: run `payflow migrate` "
                "as a role that may alter it"
            )
        with suppress(PayflowError):
            await self._shared_clock.ask(database.now)
        following = asyncio.create_task(self._shared_clock.follow(database.now))

        async def stop_following() -> None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

        self.on_close(stop_following)
        return database

    @property
    def direct_postgres_url(self) -> str:
        """PostgreSQL itself, also where the pool goes through PgBouncer: for connections that are kept."""
        return as_user_of(self.common.postgres_direct_url, self.common.postgres_url) or self.common.postgres_url

    async def reads(self, primary: S, over: Callable[[Database], S], *, database: Database) -> Reads[S]:
        """The service's store for reads that may be a little old: `over(database)` makes it for the replica.

        Without a replica in the settings it is the primary's alone.
        """
        common = self.common
        url = as_user_of(common.postgres_replica_url, common.postgres_url)
        if not url:
            return Reads(primary)
        replica = await Database.connect(
            url=url,
            password=common.postgres_password,
            pool_size=common.postgres_pool_size,
            application=f"payflow-{self.instance}-reads",
            schema=self.service,
            pooling=common.postgres_pooling,
            command_timeout_s=REPLICA_TIMEOUT_S,
            is_primary=False,
        )
        self.on_close(replica.close)
        watch = ReplicaWatch(
            primary=database, replica=replica, clock=self.clock, lag_max_s=common.postgres_replica_lag_max_s
        )
        self.duties["watch_replica"] = watch.look_always
        return Reads(primary, replica=over(replica), watch=watch)

    @cached_property
    def kafka(self) -> Kafka | None:
        """Where events go on to; None where they stay in PostgreSQL. Raises SettingsError."""
        return kafka_of(self.common)

    def outbox(self, database: Database) -> Outbox:
        """The writing side of the event log."""
        return Outbox(database)

    def add_relay(self, service: Service, database: Database) -> None:
        """With Kafka, have this process publish the outbox, in turn with others that do."""
        if self.kafka is None:
            return
        from payflow.platform.eventlog.kafka.relay import OutboxRelay

        relay = OutboxRelay(
            kafka=self.kafka,
            database=database,
            listen_url=self.direct_postgres_url,
            listen_password=self.common.postgres_password,
            client_id=f"payflow-{self.instance}-relay",
        )
        service.background["relay_events"] = relay.run
        service.checks["kafka"] = relay.is_publishing

    def consumer(
        self,
        *,
        topics: list[str],
        handler: EventHandler,
        database: Database,
        name: str = "",
        after_commit: Callable[[Sequence[Event]], None] | None = None,
        types: Collection[str] | None = None,
        nobody_listens: Callable[[], Awaitable[bool]] | None = None,
        rest_min_s: float = REST_MIN_S,
    ) -> EventConsumer:
        """The reading side: run `.run` in the background. A service's second consumer is named `<service>.<word>`.

        `types`: the wanted ones of the topics, if not all. On Kafka, events are passed over while `nobody_listens`. In
        PostgreSQL, `rest_min_s`: seconds between two readings at least, where nobody waits for what they do.
        """
        name = name or self.service
        if self.kafka is not None:
            from payflow.platform.eventlog.kafka.consumer import KafkaConsumer

            return KafkaConsumer(
                kafka=self.kafka,
                name=name,
                topics=topics,
                handler=handler,
                database=database,
                client_id=f"payflow-{self.instance}",
                after_commit=after_commit,
                types=types,
                nobody_listens=nobody_listens,
            )
        lag = EventLag(database=database, consumer=name, types=wanted_types(topics, types))
        self.duties[f"measure_events_of_{name}"] = every(5.0, lag.measure)
        return Consumer(
            name=name,
            topics=topics,
            handler=handler,
            database=database,
            listen_url=self.direct_postgres_url,
            listen_password=self.common.postgres_password,
            after_commit=after_commit,
            types=types,
            rest_min_s=rest_min_s,
        )

    def valkey(self) -> Valkey:
        """A client of Redis or Valkey. Raises SettingsError when none is named."""
        client = connect_valkey(self.required_setting("redis_url"))
        self.on_close(client.aclose)
        return client

    def cipher(self, column_keys: str) -> ColumnCipher:
        """The cipher of encrypted columns, from the setting `column_keys`. Raises SettingsError."""
        try:
            return ColumnCipher.from_json(column_keys)
        except ValueError as error:
            raise SettingsError(f"PAYFLOW_COLUMN_KEYS: {error}") from None

    def required_setting(self, name: str) -> str:
        """A common setting that may be empty, where it is needed. Raises SettingsError when it is empty."""
        value: str = getattr(self.common, name)
        if not value:
            raise SettingsError(f"PAYFLOW_{name.upper()} is not set.")
        return value

    @cached_property
    def _clients(self) -> RpcClients:
        signer = Signer.load(service=self.service, directory=self.required_setting("service_keys_dir"))
        # Nobody calls a gateway, so that it has no other line to tell which payments went through it.
        writes_lines = self.service == "gateway"
        clients = RpcClients(signer=signer, queue_max=self.common.rpc_queue_max, writes_lines=writes_lines)
        self.on_close(clients.close)
        return clients

    def client(self, contract: type[C]) -> C:
        """A client of another service, at the URL that the settings name."""
        # Every contract names its service; a Protocol as a type argument hides that from the checker.
        return self._clients.connect(contract, self.common.url_of(contract.service))  # type: ignore[attr-defined]

    def checks_for(
        self, *, database: Database | None = None, valkey: Valkey | None = None
    ) -> dict[str, Callable[[], Awaitable[object]]]:
        """Health checks of the drivers in use."""
        checks: dict[str, Callable[[], Awaitable[object]]] = {}
        if database is not None:
            checks["postgres"] = database.ping
        if valkey is not None:
            checks["redis"] = lambda: ping_valkey(valkey)
        return checks

    def on_close(self, closer: Callable[[], Awaitable[None]]) -> None:
        """Have something closed when the process stops, in reverse order of opening."""
        self._closers.append(closer)

    async def close(self) -> None:
        """Close everything; a failure of one does not keep the others open."""
        for closer in reversed(self._closers):
            try:
                await closer()
            except Exception as error:
                log.warning("runtime.close_failed", error=repr(error))


async def run_forever(name: str, work: Callable[[], Awaitable[None]]) -> None:
    """Run a background duty; when it fails, say so and begin it again after a pause that grows to 5 s."""
    pause = 0.1
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await work()
            return
        except Exception as error:
            log.error("background.failed", duty=name, error=repr(error))
        if asyncio.get_running_loop().time() - started > 30:
            pause = 0.1
        await asyncio.sleep(pause)
        pause = min(pause * 2, 5.0)


def every(seconds: float, work: Callable[[], Awaitable[object]]) -> Callable[[], Awaitable[None]]:
    """A background duty that does `work` again and again with a pause between."""

    async def loop() -> None:
        while True:
            await work()
            await asyncio.sleep(seconds)

    return loop
