"""A batch of new payments is one row until all of them have ended or wait: what was left behind is found by it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from payflow.platform.crypto import ColumnCipher
from payflow.platform.eventlog import Outbox
from payflow.platform.ids import UuidV7
from payflow.platform.postgres import Database
from payflow.services.confirm.store import PostgresStore
from tests.builders_confirm import World

LATER = timedelta(seconds=11)


@pytest.fixture
async def database(connect_as: Callable[[str], Awaitable[Database]]) -> Database:
    database = await connect_as("confirm")
    await database.execute(
        "UPDATE transactions SET state = 'EXPIRED', due_at = NULL, wake_at = NULL, error_code = 'X' "
        "WHERE due_at IS NOT NULL"
    )
    await database.execute("DELETE FROM claimed_batch")
    return database


@pytest.fixture
async def world(database: Database, cipher: ColumnCipher) -> AsyncIterator[World]:
    made = World(a_store(database, cipher))
    await made.open_accounts()
    yield made
    await made.background.finish()


def a_store(database: Database, cipher: ColumnCipher) -> PostgresStore:
    return PostgresStore(database=database, cipher=cipher, outbox=Outbox(database), ids=UuidV7())


async def batches(database: Database) -> int:
    return int(await database.fetchval("SELECT count(*) FROM claimed_batch"))


@pytest.mark.parametrize("amount", ["1000.00", "15000.00", "999999999.00"])
async def test_a_payment_that_ended_or_waits_leaves_no_batch(world: World, database: Database, amount: str) -> None:
    await world.pay(world.request(amount))

    assert await batches(database) == 0


async def test_a_payment_that_its_process_left_behind_is_found_by_its_batch(
    world: World, database: Database, cipher: ColumnCipher
) -> None:
    request = world.request()
    await world.leave_behind(request)
    assert await batches(database) == 1
    other = a_store(database, cipher)
    now = world.clock.now()

    early = await other.lease_due(now=now, until=now + LATER, limit=10)
    (taken,) = await other.lease_due(now=now + LATER, until=now + 2 * LATER, limit=10)

    assert early == []
    assert (taken.transaction_id, taken.fencing_token) == (request.transaction_id, 2)
    assert await batches(database) == 0


async def test_a_payment_that_was_taken_over_and_left_behind_again_is_found_without_its_batch(
    world: World, database: Database, cipher: ColumnCipher
) -> None:
    await world.leave_behind(world.request())
    now = world.clock.now()
    await a_store(database, cipher).lease_due(now=now + LATER, until=now + 2 * LATER, limit=10)

    (again,) = await a_store(database, cipher).lease_due(now=now + 3 * LATER, until=now + 4 * LATER, limit=10)

    assert again.fencing_token == 3


async def test_a_batch_stays_while_more_was_left_behind_than_one_look_takes(
    world: World, database: Database, cipher: ColumnCipher
) -> None:
    world.risk.crashes = True
    with pytest.raises(RuntimeError):
        await world.gateway.confirm([world.request() for _ in range(5)])
    store, now = a_store(database, cipher), world.clock.now()

    taken = [len(await store.lease_due(now=now + LATER, until=now + 2 * LATER, limit=2)) for _ in range(4)]

    assert taken == [2, 2, 1, 0]
    assert await batches(database) == 0


async def test_what_is_unfinished_is_counted_whether_a_batch_or_a_deadline_says_so(world: World) -> None:
    await world.leave_behind(world.request())
    await world.pay(world.request("15000.00"))

    found = await world.store.open_by_state()

    assert {state.value: count for state, (count, _) in found.items()} == {"RECEIVED": 1, "AWAITING_OTP": 1}


async def test_no_index_is_on_what_the_usual_end_of_a_payment_changes(database: Database) -> None:
    indexes = await database.fetch(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'confirm' AND tablename = 'transactions'"
    )

    changed = ("state", "due_at", "leased_until", "updated_at", "completed_at", "version", "risk_level")
    assert not [row["indexdef"] for row in indexes if any(f"{column}" in row["indexdef"] for column in changed)]
