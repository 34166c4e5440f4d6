"""Lists come from a streaming replica, and nobody misses there what they have done themselves."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import aiohttp
import pytest

from tests.stack.data.world import World, assert_verified
from tests.support.api import Customer, eventually
from tests.support.postgres_node import PostgresNode
from tests.support.system import RELAXED, System, running_system

LAG_MAX_S = 4.0
# Where confirm, account and audit are above the port base.
SERVICES = (3, 7, 8)
_READS = re.compile(r'^payflow_replica_reads_total\{answered="(\w+)"\} (\S+)$', re.MULTILINE)

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def system(primary: PostgresNode, replica: PostgresNode) -> Iterator[System]:
    settings = {
        "POSTGRES_URL": primary.url(),
        "POSTGRES_REPLICA_URL": replica.url(),
        "POSTGRES_REPLICA_LAG_MAX_S": str(LAG_MAX_S),
    }
    with running_system(**RELAXED, **settings) as system:
        yield system


async def reads(system: System) -> dict[str, int]:
    """Who answered the queries that may be a little old, over all services, so far."""
    found: dict[str, int] = {}
    async with aiohttp.ClientSession() as session:
        for offset in SERVICES:
            async with session.get(f"{system.service_url(offset)}/metrics") as answer:
                for name, count in _READS.findall(await answer.text()):
                    found[name] = found.get(name, 0) + int(float(count))
    return found


async def listed(customer: Customer) -> list[str]:
    answer = await customer.client.get("/payments")
    assert answer.status == 200, answer
    return [payment["transaction_id"] for payment in answer.json["data"]]


async def statement(customer: Customer, *, to: str | None = None) -> list[Any]:
    range_of = "" if to is None else f"?to={to}"
    answer = await customer.client.get(f"/accounts/{customer.account}/entries{range_of}")
    assert answer.status == 200, answer
    return list(answer.json["data"])


async def answered_by(system: System, who: str, *customers: Customer) -> bool:
    """Whether the lists of these customers now come from `who` alone."""
    before = await reads(system)
    for customer in customers:
        await listed(customer)
        await statement(customer)
    after = await reads(system)
    grown = {name: after[name] - before.get(name, 0) for name in after if after[name] > before.get(name, 0)}
    return grown == {who: 2 * len(customers)}


async def test_lists_of_a_quiet_customer_come_from_the_replica(world: World, system: System) -> None:
    debtor, creditor = await world.make.customer(USD="100.00"), await world.make.customer(USD="0.00")
    assert (await debtor.pay(creditor.account, "1.00")).status == 200

    await eventually(lambda: answered_by(system, "replica", debtor, creditor), seconds=20, pause_s=0.5)

    assert len(await listed(debtor)) == 1
    assert len(await statement(creditor)) == 1


async def test_whoever_has_just_paid_sees_it_at_once_while_the_replica_stands_still(
    world: World, system: System, replica: PostgresNode
) -> None:
    debtor, creditor = await world.make.customer(USD="100.00"), await world.make.customer(USD="0.00")
    await eventually(lambda: answered_by(system, "replica", creditor), seconds=20, pause_s=0.5)
    await asyncio.to_thread(replica.sql, "SELECT pg_wal_replay_pause()")
    try:
        body = debtor.body(creditor.account, "1.00")
        paid = await debtor.client.confirm(body, key=body["transaction_id"])

        own_list, own_statement = await listed(debtor), await statement(debtor)
        others_statement = await statement(creditor)
        balance = await creditor.balances()

        assert paid.json["status"] == "SUCCESS"
        assert own_list == [body["transaction_id"]]
        assert [line["amount"] for line in own_statement][:1] == ["-1.00"]
        # Who did nothing may see the state of some seconds ago; a balance never is of the replica.
        assert others_statement == []
        assert balance == ("1.00", "0.00", "1.00")

        # When it is further behind than is allowed, it answers nobody.
        await eventually(lambda: sees_one(creditor), seconds=LAG_MAX_S + 5)
    finally:
        await asyncio.to_thread(replica.sql, "SELECT pg_wal_replay_resume()")
    await eventually(lambda: answered_by(system, "replica", debtor, creditor), seconds=20, pause_s=0.5)


async def sees_one(customer: Customer) -> bool:
    return len(await statement(customer)) == 1


async def test_a_statement_of_a_time_that_has_passed_is_whole_although_the_replica_stands_still(
    world: World, system: System, replica: PostgresNode
) -> None:
    debtor, creditor = await world.make.customer(USD="100.00"), await world.make.customer(USD="0.00")
    await eventually(lambda: answered_by(system, "replica", creditor), seconds=20, pause_s=0.5)
    await asyncio.to_thread(replica.sql, "SELECT pg_wal_replay_pause()")
    try:
        assert (await debtor.pay(creditor.account, "1.00")).status == 200
        await asyncio.sleep(0.05)
        end = datetime.now(UTC).isoformat().replace("+00:00", "Z")

        # The replica cannot know that nothing else comes before that instant, the primary can.
        told = await statement(creditor, to=end)
        assert [line["amount"] for line in told] == ["1.00"]
        assert await statement(creditor) == []
    finally:
        await asyncio.to_thread(replica.sql, "SELECT pg_wal_replay_resume()")

    async def told_by_the_replica() -> bool:
        before = (await reads(system)).get("replica", 0)
        assert await statement(creditor, to=end) == told
        return (await reads(system)).get("replica", 0) > before

    await eventually(told_by_the_replica, seconds=20, pause_s=0.5)


async def test_an_auditors_search_comes_from_the_replica(world: World, system: System) -> None:
    auditor = await world.sign_in_operator("auditor")

    async def from_replica() -> bool:
        before = (await reads(system)).get("replica", 0)
        answer = await auditor.get("/audit?limit=5")
        assert answer.status == 200, answer
        return bool(answer.json["data"]) and (await reads(system)).get("replica", 0) > before

    await eventually(from_replica, seconds=20, pause_s=0.5)


async def test_a_replica_that_dies_is_noticed_by_nobody(world: World, system: System, replica: PostgresNode) -> None:
    debtor, creditor = await world.make.customer(USD="100.00"), await world.make.customer(USD="0.00")
    assert (await debtor.pay(creditor.account, "1.00")).status == 200
    await eventually(lambda: answered_by(system, "replica", debtor, creditor), seconds=20, pause_s=0.5)

    await asyncio.to_thread(replica.stop)
    for _ in range(20):
        assert len(await listed(debtor)) == 1
        assert len(await statement(creditor)) == 1
    assert (await debtor.pay(creditor.account, "1.00")).status == 200
    assert len(await listed(debtor)) == 2

    await asyncio.to_thread(replica.start)
    await eventually(lambda: answered_by(system, "replica", debtor, creditor), seconds=30, pause_s=0.5)
    assert_verified(system)
