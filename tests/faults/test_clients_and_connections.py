"""Clients that go away in mid-request, and far more requests than connections: a small version of two chaos scenes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from payflow.run.instance import Instance
from payflow.run.invariants.check import check_database
from payflow_dev.chaos.history import Promise
from payflow_dev.chaos.judge import judge
from payflow_dev.chaos.scenes.gone import leave_then_pay
from payflow_dev.chaos.scenes.load import Load
from payflow_dev.chaos.world import Setup, World, own_instance, running_world

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def instance() -> Iterator[Instance]:
    with own_instance() as instance:
        yield instance


@pytest.fixture(scope="module")
async def world(instance: Instance, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    setup = Setup(
        seed=1,
        customers=8,
        history=Path(tmp_path_factory.mktemp("history")) / "history.jsonl",
        settings={"PAYFLOW_POSTGRES_POOL_SIZE": "1"},
        only_direct=True,
    )
    async with running_world(instance, setup) as world:
        world.history.write(Promise(kinds=["payment"]))
        world.clients.open()
        yield world


async def test_an_account_is_usable_at_once_after_its_clients_left_in_mid_request(world: World) -> None:
    seconds = await leave_then_pay(world, payer=0) + await leave_then_pay(world, payer=1)

    assert max(seconds) < 10


async def test_a_hundred_requests_at_once_do_not_stand_still_on_a_single_connection_in_each_pool(world: World) -> None:
    load = Load(world, at_once=100)

    await load.run(seconds=2.0)

    assert load.unanswered == 0
    assert len(load.paid_at) >= 100
    assert load.longest_pause_s() < 10


async def test_what_was_told_meanwhile_is_what_became_of_it(world: World) -> None:
    await world.heal_and_read(quiet_within_s=30)

    assert judge(world.history.path).violations == []
    findings = await check_database(world.tools.owner_url, quiet_within=timedelta(seconds=1))
    assert [finding.words for finding in findings if not finding.is_kept] == []
