"""PostgreSQL through asyncpg: a pool, transactions, named queries, and errors told in the four families."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from datetime import datetime
from importlib import resources
from time import perf_counter
from typing import Any, Final, TypeVar

import asyncpg
import msgspec
import structlog
from asyncpg.connect_utils import SessionAttribute
from asyncpg.protocol import protocol as asyncpg_protocol
from prometheus_client import Counter, Histogram

from payflow.kernel.errors import PayflowError, Unavailable, UnknownOutcome
from payflow.platform.kept_connections import Connection as Connection
from payflow.platform.kept_connections import KeptConnections
from payflow.platform.measures import SECONDS, LiveGauge
from payflow.platform.pooling import Pooling, is_kept, session_settings
from payflow.platform.servers import Connector

log = structlog.get_logger(__name__)

Item = TypeVar("Item")
Answer = TypeVar("Answer")
ACQUIRE_TIMEOUT_S: Final = 2.0
CLOSE_TIMEOUT_S: Final = 2.0
# One use case, one connection. A second one while holding the first is how a full pool comes to a standstill.
_holds_connection: ContextVar[bool] = ContextVar("holds_connection", default=False)

_NAME: Final = re.compile(r"^-- ([a-z][a-z0-9_]*) --$")
_LOST_CONNECTION: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    # What asyncpg raises when the server's last word came while the connection was idle.
    asyncpg.InternalClientError,
    asyncpg.CannotConnectNowError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    ConnectionError,
    OSError,
    TimeoutError,
)
_wait_s: Final = Histogram(
    "payflow_postgres_wait_seconds", "Time that a use case waited for a connection of the pool.", buckets=SECONDS
)
_failures: Final = Counter(
    "payflow_postgres_failures_total",
    "Use cases that failed by the database: not_reached, lost, or conflict (repeated at once).",
    ["kind"],
)
_not_reached, _lost, _conflict = (_failures.labels(kind) for kind in ("not_reached", "lost", "conflict"))
_connections: Final = LiveGauge("payflow_postgres_connections", "Connections of the pool.", ["state"])
_connections_max: Final = LiveGauge("payflow_postgres_connections_max", "Connections that the pool may have.")
_waiting: Final = LiveGauge("payflow_postgres_waiting", "Use cases that wait for a connection of the pool.")
_OUT_OF_RESOURCES: Final = (asyncpg.TooManyConnectionsError, asyncpg.DiskFullError, asyncpg.OutOfMemoryError)
_ANY_SERVER: Final = "target_session_attrs"
# It answers, and will not have us: waiting for it does not help.
_REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)


class ConcurrencyConflict(Unavailable):
    """A deadlock or serialisation failure: nothing happened, and the batch can be repeated at once."""


class Queries:
    """Named queries of a `queries.sql`: `queries.lock_balances`. Each is headed by a line `-- lock_balances --`."""

    def __init__(self, text: str) -> None:
        self._by_name: dict[str, str] = {}
        name, lines = "", list[str]()
        for line in [*text.splitlines(), "-- end --"]:
            heading = _NAME.match(line)
            if heading is None:
                lines.append(line)
                continue
            if name:
                if name in self._by_name:
                    raise ValueError(f"two queries are named {name}")
                self._by_name[name] = "\n".join(lines).strip()
            name, lines = heading.group(1), []

    def __getattr__(self, name: str) -> str:
        try:
            return self._by_name[name]
        except KeyError:
            raise AttributeError(f"no query is named {name}") from None

    def names(self) -> list[str]:
        """The names of all queries, in file order."""
        return list(self._by_name)


def load_queries(package: str, name: str = "queries.sql") -> Queries:
    """Read the named queries that stand beside a service's `store.py`."""
    return Queries(resources.files(package).joinpath(name).read_text(encoding="utf-8"))


# What is an array: asyncpg asks of each element whether it is "sized" or "iterable", to find arrays of arrays; asking
# that of an abstract class costs more than encoding the element. A batch is some hundred arrays. Anything else than
# these is refused by asyncpg as no array.
_ARRAYS: Final[tuple[type, ...]] = (list, tuple, set, frozenset, type({}.keys()), type({}.values()))
vars(asyncpg_protocol).update(IterableABC=_ARRAYS, SizedABC=_ARRAYS)


async def _prepare_connection(connection: asyncpg.Connection[Any]) -> None:
    await connection.set_type_codec(
        "jsonb",
        schema="pg_catalog",
        encoder=lambda value: b"\x01" + msgspec.json.encode(value),
        decoder=lambda data: msgspec.json.decode(data[1:]),
        format="binary",
    )


async def _leave_as_it_is(_: Any) -> None:
    """Nothing in this code changes a session, so that a connection needs no round trip of tidying up after each use."""


class Database:
    """A service's pool of connections to its own schema."""

    def __init__(self, pool: asyncpg.Pool[Any]) -> None:
        self._kept = KeptConnections(pool)
        _connections.watch(self._kept, lambda kept: kept.used, "used")
        _connections.watch(self._kept, lambda kept: kept.idle, "idle")
        _connections_max.watch(self._kept, lambda kept: kept.size_max)
        _waiting.watch(self._kept, lambda kept: kept.waiting)

    @classmethod
    async def connect(
        cls,
        *,
        url: str,
        password: str = "",
        pool_size: int,
        application: str,
        schema: str = "",
        pooling: Pooling = "session",
        command_timeout_s: float = 30,
        is_primary: bool = True,
    ) -> Database:
        """Open the pool (lazily: the first connection is made by the first query).

        `is_primary`: no connection to a standby is used, also where the address leads to one for a moment (a failover);
        an address may say otherwise itself (`target_session_attrs`).
        `schema` becomes the search path; with `pooling` by transaction the role must keep it (`keeps_search_path`).
        """
        by_transaction = pooling == "transaction"
        pool = await asyncpg.create_pool(
            dsn=url,
            connect=Connector(url),
            password=password or None,
            min_size=0,
            max_size=pool_size,
            max_inactive_connection_lifetime=300,
            init=_prepare_connection,
            reset=_leave_as_it_is,
            # PgBouncer refuses a client that asks for settings which it could not keep for it.
            server_settings={"application_name": application} | ({} if by_transaction else session_settings(schema)),
            # 0: the unnamed statement, parsed and run on one server connection.
            statement_cache_size=0 if by_transaction else 100,
            command_timeout=command_timeout_s,
            target_session_attrs=SessionAttribute.read_write if is_primary and _ANY_SERVER not in url else None,
        )
        return cls(pool)

    async def renew(self) -> None:
        """Use none of the present connections again: the next use case gets a new one."""
        await self._kept.renew()

    async def close(self) -> None:
        """Close every connection, waiting at most 2 s for those in use."""
        await self._kept.close(timeout_s=CLOSE_TIMEOUT_S)

    async def ping(self) -> None:
        """Raises Unavailable unless a query is answered."""
        await self.fetchval("SELECT 1")

    async def keeps_search_path(self, schema: str) -> bool:
        """Whether sessions find the tables of this schema as the service needs it. Raises Unavailable."""
        return is_kept(str(await self.fetchval("SELECT current_setting('search_path')")), schema)

    async def now(self) -> datetime:
        """The server's present instant. Raises Unavailable."""
        instant: datetime = await self.fetchval("SELECT clock_timestamp()")
        return instant

    @asynccontextmanager
    async def transaction(self, *, is_read_only: bool = False) -> AsyncIterator[Connection]:
        """One database transaction on one connection; commits at the end, rolls back when the block raises.

        Raises ConcurrencyConflict (repeat at once), Unavailable (nothing happened), or UnknownOutcome when the
        connection was lost during the commit, so that nobody can tell.
        """
        async with self._connection() as connection:
            transaction = connection.transaction(
                isolation="repeatable_read" if is_read_only else None, readonly=is_read_only
            )
            await transaction.start()
            try:
                yield connection
            except BaseException:
                # On a connection that is gone there is nothing to roll back; what ended the block is what counts.
                with suppress(*_LOST_CONNECTION):
                    if not connection.is_closed():
                        await transaction.rollback()
                raise
            try:
                await transaction.commit()
            except (asyncpg.DeadlockDetectedError, asyncpg.SerializationError) as error:
                raise ConcurrencyConflict(type(error).__name__) from error
            except _LOST_CONNECTION as error:
                _lost.inc()
                raise UnknownOutcome("The database connection was lost during a commit.") from error

    def _connection(self) -> _Use:
        return _Use(self._kept)

    async def fetch(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """Run one statement in a transaction of its own; all rows."""
        async with self._connection() as connection:
            return await connection.fetch(query, *args)

    async def write(self, query: str, *args: Any) -> list[asyncpg.Record]:
        """As `fetch`, for a statement that changes something: UnknownOutcome when the connection was lost meanwhile."""
        is_sent = False
        try:
            async with self._connection() as connection:
                is_sent = True
                return await connection.fetch(query, *args)
        except ConcurrencyConflict:
            raise
        except Unavailable as error:
            if is_sent:
                raise UnknownOutcome("The database connection was lost during a write.") from error
            raise

    async def fetchrow(self, query: str, *args: Any) -> asyncpg.Record | None:
        """Run one statement in a transaction of its own; the first row."""
        async with self._connection() as connection:
            return await connection.fetchrow(query, *args)

    async def fetchval(self, query: str, *args: Any) -> Any:
        """Run one statement in a transaction of its own; the first value of the first row."""
        async with self._connection() as connection:
            return await connection.fetchval(query, *args)

    async def execute(self, query: str, *args: Any) -> str:
        """Run one statement in a transaction of its own; the command tag."""
        async with self._connection() as connection:
            return await connection.execute(query, *args)


class _Use:
    """One use of a connection, its errors told in the four families."""

    __slots__ = ("_connection", "_kept", "_renewals", "_token")

    def __init__(self, kept: KeptConnections) -> None:
        self._kept = kept

    async def __aenter__(self) -> Connection:
        if _holds_connection.get():
            raise RuntimeError("a use case asked for a second connection while holding one")
        began_at = perf_counter()
        self._renewals = self._kept.renewals
        try:
            self._connection = await self._kept.take(timeout_s=ACQUIRE_TIMEOUT_S)
        except _REFUSED as error:
            _not_reached.inc()
            log.warning("database.refused", error=repr(error))
            raise Unavailable("The database refuses the connection: its name, role or password is wrong.") from error
        except (*_LOST_CONNECTION, *_OUT_OF_RESOURCES, asyncpg.PostgresError) as error:
            _not_reached.inc()
            raise Unavailable("The database cannot be reached.") from error
        finally:
            _wait_s.observe(perf_counter() - began_at)
        self._token = _holds_connection.set(True)
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        _holds_connection.reset(self._token)
        if error is None:
            await self._kept.give_back(self._connection, is_whole=True, renewals=self._renewals)
            return
        told = _told(error, self._connection)
        await self._kept.give_back(self._connection, is_whole=False, renewals=self._renewals)
        if told is not None:
            raise told from error


def _told(error: BaseException, connection: Connection) -> PayflowError | None:
    """The error of the four families that stands for this one; None where it says what it is itself."""
    if isinstance(error, ConcurrencyConflict):
        _conflict.inc()
        return None
    if isinstance(error, (asyncpg.DeadlockDetectedError, asyncpg.SerializationError)):
        _conflict.inc()
        return ConcurrencyConflict(type(error).__name__)
    if isinstance(error, (*_LOST_CONNECTION, *_OUT_OF_RESOURCES)):
        _lost.inc()
        log.warning("database.lost", error=repr(error))
        return Unavailable("The database connection was lost.")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        # The server has become a standby: the next connection is made to whoever is the primary now.
        connection.terminate()
        _lost.inc()
        log.warning("database.became_standby", error=repr(error))
        return Unavailable("The database is no longer the primary.")
    return None


async def repeat_on_conflict(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run one transaction; after a deadlock or serialisation failure (nothing happened) run it again, twice at most."""
    for pause_s in (0.002, 0.01):
        try:
            return await work()
        except ConcurrencyConflict:
            await asyncio.sleep(pause_s)
    return await work()


async def repeat_then_halve(
    work: Callable[[Sequence[Item]], Awaitable[list[Answer | PayflowError]]], items: Sequence[Item]
) -> list[Answer | PayflowError]:
    """Run a batch; after a deadlock or serialisation failure repeat it once, then in halves.

    A single item that fails twice more is answered with its ConcurrencyConflict: nothing happened to it.
    """
    for _ in range(2):
        try:
            return await work(items)
        except ConcurrencyConflict as conflict:
            last = conflict
            await asyncio.sleep(0.002)
    if len(items) <= 1:
        return [last for _ in items]
    middle = len(items) // 2
    first = await repeat_then_halve(work, items[:middle])
    return first + await repeat_then_halve(work, items[middle:])
