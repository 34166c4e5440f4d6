"""Redis or Valkey through redis-py, one server or a cluster; failures are told as Unavailable, never as "allowed"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, TypeAlias
from urllib.parse import unquote, urlsplit

import redis.asyncio as redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisClusterException, RedisError

from payflow.kernel.errors import Unavailable
from payflow.platform.addresses import split_address

Valkey: TypeAlias = "redis.Redis | RedisCluster"

_CLUSTER_SCHEMES: Final = {"redis+cluster": False, "rediss+cluster": True}
_DEFAULT_PORT: Final = 6379
_CONNECTIONS_MAX: Final = 32
# Callers give up after a quarter of a second. A node that is gone must be noticed before: it is the failure, not the
# giving up, that makes the client ask the others who has taken over.
_CLUSTER_TIMEOUT_S: Final = 0.2


def connect_valkey(url: str) -> Valkey:
    """A client with its own pool; connects at the first command.

    `url`: redis://host:port/0, unix:///path, or redis+cluster://host:port,host:port for a cluster, of which one node
    that answers is enough to find the others; `rediss` for TLS. All keys of one script, or of one pipeline, must have
    the same hash tag. Raises ValueError for what is no address.
    """
    if split_address(url).scheme in _CLUSTER_SCHEMES:
        return _connect_cluster(url)
    return redis.Redis.from_url(
        url,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        health_check_interval=0,
        max_connections=_CONNECTIONS_MAX,
        decode_responses=False,
    )


def _connect_cluster(url: str) -> RedisCluster:
    login = split_address(url).netloc.rpartition("@")[0]
    username, _, password = login.partition(":")
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in _nodes_of(url)],
        # Our keys are in one slot: whether others have a master is of no concern.
        require_full_coverage=False,
        # Once more at once, at whom the others then name; whoever asked does not wait any longer.
        retry=Retry(NoBackoff(), 1),
        username=unquote(username) or None,
        password=unquote(password) or None,
        ssl=_CLUSTER_SCHEMES[split_address(url).scheme],
        socket_timeout=_CLUSTER_TIMEOUT_S,
        socket_connect_timeout=_CLUSTER_TIMEOUT_S,
        max_connections=_CONNECTIONS_MAX,
        decode_responses=False,
    )


def _nodes_of(url: str) -> list[tuple[str, int]]:
    """The nodes that an address names: [("host", 7000)]."""
    found = []
    for place in split_address(url).netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{place}")
        if not parts.hostname:
            raise ValueError("expected redis+cluster://HOST:PORT,HOST:PORT")
        found.append((parts.hostname, parts.port or _DEFAULT_PORT))
    return found


@asynccontextmanager
async def valkey_errors() -> AsyncIterator[None]:
    """Turns every failure to reach Valkey inside the block into Unavailable."""
    try:
        yield
    except (RedisError, RedisClusterException, OSError, TimeoutError) as error:
        raise Unavailable("The cache cannot be reached.") from error


async def ping_valkey(client: Valkey) -> None:
    """Raises Unavailable unless Valkey answers; of a cluster, one node."""
    async with valkey_errors():
        answer: Any = await client.ping()
        if not answer:
            raise Unavailable("The cache did not answer.")
