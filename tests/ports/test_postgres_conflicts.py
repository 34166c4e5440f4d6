"""Collisions in a real PostgreSQL: told as conflicts, and repeated."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context

import pytest

from payflow.kernel.errors import PayflowError, Rejection
from payflow.platform.postgres import ConcurrencyConflict, Database, repeat_on_conflict, repeat_then_halve
from tests.builders_postgres import add_one, number_table, pool


@pytest.fixture(scope="module")
async def table(database_url: str) -> str:
    return await number_table(database_url)


async def lock_in_order(database: Database, table: str, ids: Sequence[int], *, meet: asyncio.Barrier | None) -> None:
    """One transaction that changes rows one after the other; `meet` makes two of them collide after the first row."""
    async with database.transaction() as connection:
        for position, id_ in enumerate(ids):
            await connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = $1", id_)
            if position == 0 and meet is not None:
                await meet.wait()


async def test_a_deadlock_is_a_conflict_and_the_other_side_goes_through(database_url: str, table: str) -> None:
    meet = asyncio.Barrier(2)
    async with pool(database_url) as database:
        before = await database.fetchval(f"SELECT sum(value) FROM {table}")

        outcomes = await asyncio.gather(
            lock_in_order(database, table, [1, 2], meet=meet),
            lock_in_order(database, table, [2, 1], meet=meet),
            return_exceptions=True,
        )

        after = await database.fetchval(f"SELECT sum(value) FROM {table}")
    conflicts = [outcome for outcome in outcomes if isinstance(outcome, ConcurrencyConflict)]
    assert (len(conflicts), outcomes.count(None)) == (1, 1)
    assert after - before == 2


async def test_after_a_deadlock_the_batch_is_repeated_and_both_are_done(database_url: str, table: str) -> None:
    meet = asyncio.Barrier(2)
    async with pool(database_url) as database:
        before = await database.fetchval(f"SELECT sum(value) FROM {table}")

        async def work(ids: Sequence[int], first: list[bool]) -> list[int | PayflowError]:
            meeting = meet if first else None
            first.clear()
            await lock_in_order(database, table, ids, meet=meeting)
            return list(ids)

        answers = await asyncio.gather(
            repeat_then_halve(lambda ids, first=[True]: work(ids, first), [3, 4]),
            repeat_then_halve(lambda ids, first=[True]: work(ids, first), [4, 3]),
        )

        after = await database.fetchval(f"SELECT sum(value) FROM {table}")
    assert answers == [[3, 4], [4, 3]]
    assert after - before == 4


async def test_a_serialisation_failure_is_a_conflict_too(database_url: str, table: str) -> None:
    async with pool(database_url) as database:

        async def overtaken() -> None:
            async with database.transaction() as connection:
                await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
                await connection.fetchval(f"SELECT value FROM {table} WHERE id = 5")
                async with pool(database_url) as other:
                    await asyncio.create_task(add_one(other, table, 5), context=Context())
                await connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = 5")

        with pytest.raises(ConcurrencyConflict):
            await overtaken()


class Colliding:
    """Work on a batch that collides as long as an item of `bad` is among more than `alone` items."""

    def __init__(self, bad: set[int], *, alone: bool = False) -> None:
        self.bad, self.alone = bad, alone
        self.batches: list[list[int]] = []

    async def __call__(self, items: Sequence[int]) -> list[int | PayflowError]:
        self.batches.append(list(items))
        if self.bad & set(items) and (len(items) > 1 or self.alone):
            raise ConcurrencyConflict("deadlock")
        return [item * 10 for item in items]


async def test_a_batch_that_goes_on_colliding_is_halved_until_its_neighbours_are_done() -> None:
    work = Colliding({3})

    answers = await repeat_then_halve(work, [1, 2, 3, 4])

    assert answers == [10, 20, 30, 40]
    assert work.batches == [[1, 2, 3, 4], [1, 2, 3, 4], [1, 2], [3, 4], [3, 4], [3], [4]]


async def test_an_item_that_collides_alone_is_answered_with_its_conflict_and_its_neighbours_with_theirs() -> None:
    work = Colliding({3}, alone=True)

    answers = await repeat_then_halve(work, [1, 2, 3])

    assert answers[:2] == [10, 20]
    assert isinstance(answers[2], ConcurrencyConflict)
    assert work.batches.count([3]) == 2


async def test_an_empty_batch_that_collides_ends() -> None:
    async def collide(items: Sequence[int]) -> list[int | PayflowError]:
        raise ConcurrencyConflict("deadlock")

    assert await repeat_then_halve(collide, []) == []


async def test_work_without_a_batch_is_repeated_twice_and_then_tells() -> None:
    tries: list[int] = []

    async def collide() -> None:
        tries.append(1)
        raise ConcurrencyConflict("deadlock")

    with pytest.raises(ConcurrencyConflict):
        await repeat_on_conflict(collide)
    assert len(tries) == 3


async def test_other_errors_are_not_repeated() -> None:
    tries: list[int] = []

    async def refuse(items: Sequence[int]) -> list[int | PayflowError]:
        tries.append(1)
        raise Rejection("no")

    with pytest.raises(Rejection):
        await repeat_then_halve(refuse, [1, 2])
    assert len(tries) == 1
