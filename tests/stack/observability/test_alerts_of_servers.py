"""What raises an alert is made to happen, and somebody is told (see tests.support.watched): a replica, disks, clocks.

Payflow stands here on a PostgreSQL of the test's own with a replica, and its processes' clocks can be set wrong.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from payflow_dev.chaos.clock import Clocks
from tests.support.exporters import Exporter, postgres_exporter, running_exporter
from tests.support.postgres_node import PostgresNode
from tests.support.small_disk import small_disk
from tests.support.system import RELAXED, System, running_system
from tests.support.watched import World, a_payer, paying_on, watched

pytestmark = pytest.mark.timeout(240)
_FILE_SYSTEMS_ONLY: Final = ("--collector.disable-defaults", "--collector.filesystem")


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watchers")


@pytest.fixture(scope="module")
def clocks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clocks]:
    made = Clocks(tmp_path_factory.mktemp("clocks"))
    why_not = made.build()
    assert why_not is None, f"{why_not} (Debian: gcc, libc6-dev)"
    yield made
    made.close()


@pytest.fixture(scope="module")
def system(primary: PostgresNode, replica: PostgresNode, clocks: Clocks) -> Iterator[System]:
    settings = {"POSTGRES_URL": primary.url(), "POSTGRES_REPLICA_URL": replica.url()}
    with running_system(environ=clocks.environment(), **RELAXED, **settings) as system:
        yield system


@pytest.fixture(scope="module")
def node(logs: Path) -> Iterator[Exporter]:
    with running_exporter("node", _FILE_SYSTEMS_ONLY, log=logs / "node.log") as exporter:
        yield exporter


@pytest.fixture(scope="module")
def world(system: System, primary: PostgresNode, replica: PostgresNode, node: Exporter, logs: Path) -> Iterator[World]:
    with (
        postgres_exporter(replica.url(), log=logs / "replica.log", is_replica=True) as of_replica,
        watched(
            system, logs, postgres_url=primary.url(), further={"replica": of_replica.address, "node": node.address}
        ) as world,
    ):
        yield world


async def test_a_replica_that_stands_still_is_a_ticket_until_it_has_caught_up(
    world: World, replica: PostgresNode
) -> None:
    async with a_payer(world.system) as (payer, payee):
        await asyncio.to_thread(replica.sql, "SELECT pg_wal_replay_pause()")
        try:
            async with paying_on(payer, payee):
                told = await asyncio.to_thread(world.told, "ReplicaLags")
        finally:
            await asyncio.to_thread(replica.sql, "SELECT pg_wal_replay_resume()")
    back = await asyncio.to_thread(world.told, "ReplicaLags", "resolved")

    assert (told.to, back.to) == ("tickets", "tickets")


async def test_a_replica_that_nobody_can_use_is_a_ticket_of_each_service_that_reads_there(
    world: World, replica: PostgresNode
) -> None:
    readers = ("confirm", "account", "audit")
    await asyncio.to_thread(replica.stop)
    try:
        told = [await asyncio.to_thread(world.told, "ReplicaNotUsed", process=reader) for reader in readers]
    finally:
        await asyncio.to_thread(replica.start)
    back = [await asyncio.to_thread(world.told, "ReplicaNotUsed", "resolved", process=reader) for reader in readers]

    assert {one.to for one in (*told, *back)} == {"tickets"}


async def test_a_disk_that_fills_pages_somebody_until_there_is_room(world: World, tmp_path: Path) -> None:
    with small_disk(tmp_path) as disk:
        disk.fill(0.95)
        told = await asyncio.to_thread(world.told, "DiskFills", mountpoint=str(disk.mountpoint))
        disk.free()
        back = await asyncio.to_thread(world.told, "DiskFills", "resolved", mountpoint=str(disk.mountpoint))

    assert (told.to, back.to) == ("pages", "pages")


async def test_an_exporter_that_has_ended_is_a_ticket_until_it_is_back(world: World, node: Exporter) -> None:
    try:
        await asyncio.to_thread(node.stop)
        told = await asyncio.to_thread(world.told, "ExporterDown", job="node")
    finally:
        await asyncio.to_thread(node.start)
    back = await asyncio.to_thread(world.told, "ExporterDown", "resolved", job="node")

    assert (told.to, back.to) == ("tickets", "tickets")


async def test_a_clock_that_is_wrong_is_a_ticket_until_it_is_set_right(world: World, clocks: Clocks) -> None:
    pid = int((await asyncio.to_thread(world.system.processes))["kyc"]["pid"])

    clocks.shift(pid, -20.0)
    try:
        told = await asyncio.to_thread(world.told, "ClockDiffers", process="kyc")
    finally:
        clocks.heal()
    back = await asyncio.to_thread(world.told, "ClockDiffers", "resolved", process="kyc")

    assert (told.to, back.to) == ("tickets", "tickets")


async def test_services_that_fail_without_their_database_page_somebody(world: World, primary: PostgresNode) -> None:
    async with a_payer(world.system) as (payer, payee), paying_on(payer, payee):
        await asyncio.to_thread(primary.stop)
        try:
            told = await asyncio.to_thread(world.told, "ProcessFails", service="confirm")
        finally:
            await asyncio.to_thread(primary.start)

    assert told.to == "pages"
