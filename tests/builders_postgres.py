"""Pools over a real PostgreSQL, and a table for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from payflow.platform.postgres import Database


@asynccontextmanager
async def pool(url: str, *, size: int = 2, name: str = "test-pool") -> AsyncIterator[Database]:
    database = await Database.connect(url=url, pool_size=size, application=name)
    try:
        yield database
    finally:
        await database.close()


async def add_one(database: Database, table: str, id_: int) -> None:
    await database.execute(f"UPDATE {table} SET value = value + 1 WHERE id = $1", id_)


async def number_table(database_url: str) -> str:
    """A table of numbers 1 to 20 that every role may change."""
    owner = await asyncpg.connect(database_url)
    await owner.execute(
        "CREATE TABLE public.number (id int PRIMARY KEY, value int NOT NULL DEFAULT 0);"
        "INSERT INTO public.number SELECT generate_series(1, 20);"
        "GRANT SELECT, INSERT, UPDATE ON public.number TO PUBLIC"
    )
    await owner.close()
    return "public.number"
