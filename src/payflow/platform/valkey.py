"""Redis or Valkey through redis-py; its failures are told as Unavailable, never as "allowed"."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import redis.asyncio as redis
from redis.exceptions import RedisError

from payflow.kernel.errors import Unavailable


def connect_valkey(url: str) -> redis.Redis:
    """A client with its own pool; connects at the first command. `url`: redis://host:port/0 or unix:///path."""
    return redis.Redis.from_url(
        url,
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        health_check_interval=0,
        max_connections=32,
        decode_responses=False,
    )


@asynccontextmanager
async def valkey_errors() -> AsyncIterator[None]:
    """Turns every failure to reach Valkey inside the block into Unavailable."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable("The cache cannot be reached.") from error


async def ping_valkey(client: redis.Redis) -> None:
    """Raises Unavailable unless Valkey answers."""
    async with valkey_errors():
        answer: Any = await client.ping()
        if not answer:
            raise Unavailable("The cache did not answer.")
