"""The primary is killed under payments: Patroni promotes its synchronous standby, and nothing that was told is lost.

By hand (`make test-stack-full`): it installs Patroni, and waits for a leader's word to run out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from tests.stack.data.world import World, assert_books_are_as_told, assert_verified, world_of
from tests.support.api import eventually
from tests.support.load import Load
from tests.support.patroni import Patroni, running_patroni
from tests.support.postgres_node import server_folder
from tests.support.system import RELAXED, System, running_system

CUSTOMERS = 24
# What is asked for: payments again within a minute.
PAYMENTS_AGAIN_S = 60.0

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def patroni() -> Iterator[Patroni]:
    with server_folder() as folder, running_patroni(folder) as patroni:
        yield patroni


@pytest.fixture(scope="module")
def system(patroni: Patroni) -> Iterator[System]:
    with running_system(**RELAXED, PAYFLOW_POSTGRES_URL=patroni.url) as system:
        yield system


@pytest.fixture(scope="module")
async def world(system: System) -> AsyncIterator[World]:
    async with world_of(system) as world:
        yield world


async def test_payments_go_on_after_the_primary_was_killed_and_each_that_was_told_is_there(
    world: World, system: System, patroni: Patroni
) -> None:
    customers = [await world.make.customer(USD="1000000.00") for _ in range(CUSTOMERS)]
    load = Load(customers, pause_s=0.2, seed=13)
    load.start()

    async def some() -> bool:
        return load.paid > 50

    await eventually(some, seconds=90)
    leader = patroni.leader
    told_before = [order for order in load.orders if order.is_paid]
    patroni.kill(leader)
    killed_at, paid = time.monotonic(), load.paid

    async def paid_again() -> bool:
        # Answers that were on their way when the primary died are not what is waited for.
        return load.paid > paid + CUSTOMERS

    await eventually(paid_again, seconds=PAYMENTS_AGAIN_S)
    gap_s = time.monotonic() - killed_at
    await asyncio.sleep(5)
    await load.stop()

    print(f"{leader.name} killed: payments again after {gap_s:.1f} s; {len(told_before)} told before; {load.told}")
    assert not load.bugs
    assert gap_s <= PAYMENTS_AGAIN_S
    await assert_books_are_as_told(load)
    await eventually(lambda: is_quiet(patroni), seconds=60)
    assert_verified(system)


async def is_quiet(patroni: Patroni) -> bool:
    connection = await asyncpg.connect(patroni.url)
    try:
        open_ones = await connection.fetchval(
            "SELECT count(*) FROM confirm.transactions WHERE state IN ('RECEIVED', 'APPROVED', 'HELD', 'SUBMITTED')"
        )
    finally:
        await connection.close()
    return int(open_ones) == 0


async def test_the_dead_node_comes_back_as_the_synchronous_standby(patroni: Patroni) -> None:
    (dead,) = [node for node in patroni.nodes if node.role() == ""]
    began_at = time.monotonic()

    patroni.run(dead)
    await asyncio.to_thread(patroni.until, lambda: dead.role() == "sync_standby")

    print(f"{dead.name} is the synchronous standby again after {time.monotonic() - began_at:.1f} s")
    assert patroni.leader is not dead


async def test_a_planned_switchover_is_a_short_pause(world: World, system: System, patroni: Patroni) -> None:
    customers = [await world.make.customer(USD="1000000.00") for _ in range(8)]
    load = Load(customers, pause_s=0.2, seed=17)
    load.start()

    async def some() -> bool:
        return load.paid > 10

    await eventually(some, seconds=60)
    before = patroni.leader
    began_at = time.monotonic()
    await asyncio.to_thread(patroni.switch_over)
    paid = load.paid

    async def paid_again() -> bool:
        return load.paid > paid + len(customers)

    await eventually(paid_again, seconds=PAYMENTS_AGAIN_S)
    gap_s = time.monotonic() - began_at
    await load.stop()

    print(f"switched over from {before.name}: payments again after {gap_s:.1f} s; {load.told}")
    assert patroni.leader is not before
    assert not load.bugs
    await assert_books_are_as_told(load)
    assert_verified(system)
