"""Every service runs several times; of three confirms one is killed with payments in its hands: the others go on."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Iterator

import aiohttp
import asyncpg
import pytest

from payflow.run.inspection import owner_url
from payflow.run.registry import SERVICES, service_names
from payflow.run.supervisor.status import ProcessStatus, read_status
from tests.stack.data.world import World, assert_books_are_as_told, assert_verified
from tests.support.api import eventually
from tests.support.load import Load
from tests.support.other_bank import NORDBANK
from tests.support.system import RELAXED, System, kill, running_system

CUSTOMERS = 24
LEASE_S = 3
# By hand with TEST_COPIES=3 (`make test-failover`): more processes than the machine of a pipeline likes.
COPIES = dict.fromkeys(service_names(SERVICES), int(os.environ.get("TEST_COPIES", "2"))) | {"gateway": 3, "confirm": 3}
_ANSWERS = re.compile(r'^payflow_rpc_answers_total\{.*operation="(\w+)".*\} (\S+)$', re.MULTILINE)
# Who is called for a payment; audit only reads events, and the gateway is called by customers.
CALLED = [name for name in COPIES if name not in ("gateway", "audit")]

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    options = [part for name, count in COPIES.items() for part in ("--copies", f"{name}={count}")]
    settings = {"PAYMENT_LEASE_S": str(LEASE_S), "OTP_ISSUE_PER_CUSTOMER": "10000/15m"}
    with running_system(*options, **RELAXED, **settings) as system:
        yield system


def copies_of(system: System, service: str) -> list[ProcessStatus]:
    status = read_status(system.instance)
    assert status is not None
    return [process for process in status.processes if process.service == service]


async def answered(process: ProcessStatus, operation: str | None = None) -> int:
    """How many items one process has answered, by its own metrics; of one operation where it is named."""
    async with aiohttp.ClientSession() as session, session.get(f"{process.url}/metrics") as answer:
        found = _ANSWERS.findall(await answer.text())
    return sum(int(float(count)) for name, count in found if operation in (None, name))


async def shares(system: System) -> dict[str, list[int]]:
    """How many items each copy of each service that is called has answered."""
    return {name: [await answered(process) for process in copies_of(system, name)] for name in CALLED}


async def unfinished(system: System) -> int:
    connection = await asyncpg.connect(owner_url(system.instance.data_dir))
    try:
        return int(
            await connection.fetchval(
                "SELECT count(*) FROM confirm.transactions WHERE state IN ('RECEIVED', 'APPROVED', 'HELD', 'SUBMITTED')"
            )
        )
    finally:
        await connection.close()


def test_each_copy_is_a_process_with_a_port_of_its_own(system: System) -> None:
    for service, count in COPIES.items():
        found = copies_of(system, service)
        assert len(found) == count, service
        assert len({process.url for process in found}) == count
        assert all(process.state == "healthy" for process in found)


async def test_a_killed_confirm_loses_and_doubles_nothing_and_all_three_share_the_work(
    world: World, system: System
) -> None:
    customers = [await world.make.customer(USD="1000000.00") for _ in range(CUSTOMERS)]
    load = Load(customers, pause_s=0.2, seed=5)
    load.start()

    async def shared() -> bool:
        return all([await answered(process, "confirm") >= 20 for process in copies_of(system, "confirm")])

    await eventually(shared, seconds=180, pause_s=0.5)
    victim = copies_of(system, "confirm")[1]
    async with world.other_bank.behaving("delay", delay_ms=600):
        await eventually(lambda: unfinished(system), seconds=30)
        await asyncio.sleep(1)
        in_hands = await unfinished(system)
        assert victim.pid is not None
        kill(victim.pid)
        killed_at, paid = time.monotonic(), load.paid

        async def paid_again() -> bool:
            return load.paid > paid + 5

        await eventually(paid_again, seconds=30)
        gap_s = time.monotonic() - killed_at
        await asyncio.sleep(LEASE_S)
    await load.stop()
    await eventually(lambda: no_more(system), seconds=30)
    print(f"answered by each copy: {await shares(system)}")

    print(f"killed {victim.name} with {in_hands} unfinished payments; paid again after {gap_s:.1f} s; {load.told}")
    assert in_hands > 0
    assert not load.bugs
    await assert_books_are_as_told(load)
    for order in load.orders:
        if order.is_paid and order.body["to_account"] == NORDBANK:
            payment = await order.customer.payment(order.body["transaction_id"])
            assert await world.other_bank.received(payment["payment_id"].replace("-", "")) is not None
    assert_verified(system)


async def no_more(system: System) -> bool:
    return await unfinished(system) == 0


async def test_consumers_of_which_there_are_two_handle_each_event_once(world: World, system: System) -> None:
    """Two audits and two notifications read one log: the trail's chain is whole, and no message went out twice."""
    debtor, creditor = await world.make.customer(), await world.make.customer(USD="0.00")
    paid = await debtor.pay(creditor.account, "5.00")
    assert paid.status == 200
    connection = await asyncpg.connect(owner_url(system.instance.data_dir))
    messages = "SELECT count(*) FROM notification.message WHERE customer_id = $1"
    await eventually(lambda: connection.fetchval(messages, debtor.customer_id), seconds=15)
    await asyncio.sleep(1)
    once = await connection.fetchval(
        "SELECT count(DISTINCT (kind, about)) = count(*) FROM notification.message WHERE customer_id = $1",
        debtor.customer_id,
    )
    doubled = await connection.fetch("SELECT event_id FROM audit.audit_logs GROUP BY event_id HAVING count(*) > 1")
    await connection.close()

    assert once
    assert doubled == []
    assert_verified(system)


async def test_a_restart_by_the_name_of_the_service_replaces_all_of_its_copies(system: System) -> None:
    before = {process.name: process.pid for process in copies_of(system, "account")}

    done = system.run("restart", "account", timeout_s=120)

    after = {process.name: process.pid for process in copies_of(system, "account")}
    assert done.returncode == 0, done.stderr
    assert before.keys() == after.keys()
    assert not set(before.values()) & set(after.values())
