"""One suite for the audit service in memory and over PostgreSQL, and the way from the event log into the chain."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from payflow.contracts.audit import AuditPage, AuditRow, AuditVerified, SearchAudit
from payflow.contracts.topics import TOPICS, PaymentChanged, mask_account
from payflow.platform.eventlog import Consumer, Outbox, event_of
from payflow.services.audit.consumer import EVERY_TOPIC, Recorder
from tests.builders import NOON, new_id
from tests.builders_audit import ConnectAs, MemoryWorld, PostgresWorld, World, empty_postgres_world
from tests.fakes_audit import FakeAuditStore, FakeHeads, an_event


@pytest.fixture
async def postgres_world(connect_as: ConnectAs, database_url: str, tmp_path: Path) -> AsyncIterator[PostgresWorld]:
    async with empty_postgres_world(connect_as, database_url, tmp_path) as world:
        yield world


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest, postgres_world: PostgresWorld) -> World:
    return MemoryWorld(FakeAuditStore(), FakeHeads()) if request.param == "memory" else postgres_world


async def test_an_event_becomes_a_row_with_all_that_it_said(world: World) -> None:
    event = an_event(
        time=NOON - timedelta(seconds=3),
        data={"payment_id": str(new_id()), "path": ["RECEIVED"], "reason": None, "n": 7},
    )

    await world.record(event)

    (row,) = await world.rows()
    assert (row.sequence, row.event_id, row.type, row.source) == (1, str(event.id), event.type, event.source)
    assert (row.subject, row.version, row.traceparent) == (event.subject, event.version, event.traceparent)
    assert (row.occurred_at, row.recorded_at, row.data) == (event.time, NOON, event.data)
    assert row.previous_hash == "00" * 32


async def test_an_event_that_is_delivered_again_makes_no_second_row_and_no_gap(world: World) -> None:
    first, second, third = an_event(), an_event(), an_event()

    await world.record(first, second)
    await world.record(second, first)
    await world.record(second, third)

    assert [(row.sequence, row.event_id) for row in await world.rows()] == [
        (1, str(first.id)),
        (2, str(second.id)),
        (3, str(third.id)),
    ]


async def test_rows_of_several_batches_make_one_chain(world: World) -> None:
    await world.grow(3, 1, 4)

    rows = await world.rows()
    verified = await world.verify()

    assert [row.previous_hash for row in rows[1:]] == [row.hash for row in rows[:-1]]
    assert verified == AuditVerified(rows=8, heads=3, last_sequence=8, last_hash=rows[-1].hash, problems=[])


async def test_an_empty_chain_is_whole(world: World) -> None:
    assert await world.verify() == AuditVerified(rows=0, heads=0, last_sequence=0, last_hash="00" * 32, problems=[])


async def test_the_chain_can_be_verified_from_a_row_on(world: World) -> None:
    await world.grow(3, 3)

    verified = await world.verify(from_sequence=5)

    assert (verified.rows, verified.heads, verified.last_sequence, verified.problems) == (2, 2, 6, [])


async def test_verifying_from_beyond_the_end_or_before_the_beginning_is_harmless(world: World) -> None:
    await world.grow(3)

    beyond, before = await world.verify(from_sequence=99), await world.verify(from_sequence=-5)

    assert (beyond.rows, beyond.last_sequence, beyond.problems) == (0, 3, [])
    assert (before.rows, before.last_sequence, before.problems) == (3, 3, [])


async def test_rows_are_found_by_subject_and_by_type_newest_first(world: World) -> None:
    await world.record(
        an_event(subject="p1", type="payment.held"),
        an_event(subject="p2", type="payment.held"),
        an_event(subject="p1", type="payment.completed"),
    )

    by_subject = await world.search(SearchAudit(subject="p1"))
    by_type = await world.search(SearchAudit(type="payment.held"))
    by_both = await world.search(SearchAudit(subject="p1", type="payment.held"))
    nothing = await world.search(SearchAudit(subject="p3"))

    assert [row.sequence for row in by_subject.rows] == [3, 1]
    assert [row.sequence for row in by_type.rows] == [2, 1]
    assert [row.sequence for row in by_both.rows] == [1]
    assert nothing == AuditPage(rows=[], next_cursor=None)


async def test_a_payment_and_a_customer_are_found_also_where_an_event_only_names_them(world: World) -> None:
    await world.record(
        an_event(subject="p1", data={"payment_id": "p1", "customer_id": "c1"}),
        an_event(subject="r1", type="review.decided", data={"payment_id": "p1", "customer_id": "c1"}),
        an_event(subject="c1", type="customer.created", data={"customer_id": "c1"}),
        an_event(subject="p2", data={"payment_id": "p2", "customer_id": "c2"}),
    )

    of_payment = await world.search(SearchAudit(subject="p1"))
    of_customer = await world.search(SearchAudit(subject="c1", oldest_first=True))

    assert [row.sequence for row in of_payment.rows] == [2, 1]
    assert [row.sequence for row in of_customer.rows] == [1, 2, 3]


@pytest.mark.parametrize(("oldest_first", "expected"), [(False, [5, 4, 3, 2, 1]), (True, [1, 2, 3, 4, 5])])
async def test_pages_follow_one_another_without_gap_or_repetition(
    world: World, oldest_first: bool, expected: list[int]
) -> None:
    await world.record(*(an_event() for _ in range(5)))

    found: list[int] = []
    cursor: int | None = None
    for _ in range(3):
        page = await world.search(SearchAudit(limit=2, cursor=cursor, oldest_first=oldest_first))
        found.extend(row.sequence for row in page.rows)
        cursor = page.next_cursor

    assert found == expected
    assert cursor is None


async def test_a_page_has_at_most_200_rows_and_at_least_one(world: World) -> None:
    await world.record(*(an_event() for _ in range(201)))

    large, small = await world.search(SearchAudit(limit=10_000)), await world.search(SearchAudit(limit=0))

    assert (len(large.rows), large.next_cursor) == (200, 2)
    assert (len(small.rows), small.next_cursor) == (1, 201)


async def test_a_head_is_signed_once_for_each_end(world: World) -> None:
    await world.api.sign_head()
    await world.grow(2)
    await world.api.sign_head()
    await world.grow(1)

    verified = await world.verify()

    assert (verified.heads, verified.problems) == (2, [])


async def test_a_receipt_that_a_crash_kept_back_is_made_up_for(world: World) -> None:
    await world.grow(2, 2)
    receipt = await world.store.receipt()
    await world.grow(1)
    await _set_receipt(world, receipt.number, receipt.digest)

    await world.api.sign_head()

    assert (await world.store.receipt()).number == 3
    assert (await world.verify()).problems == []


async def _set_receipt(world: World, number: int, digest: str) -> None:
    if isinstance(world, PostgresWorld):
        await world.owner.execute("UPDATE audit.head_receipt SET number = $1, digest = $2", number, digest)
    else:
        world.store.head_receipt = msgspec.structs.replace(world.store.head_receipt, number=number, digest=digest)


async def test_rows_that_nobody_signs_are_reported(world: World) -> None:
    await world.grow(2)
    await world.record(an_event())
    world.clock.move(timedelta(minutes=2))

    verified = await world.verify()

    assert verified.problems == ["row 3: no head was signed"]


# --- from the event log to the chain ----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def consuming(world: PostgresWorld, database_url: str) -> AsyncIterator[None]:
    consumer = Consumer(
        name="audit",
        topics=EVERY_TOPIC,
        handler=Recorder(clock=world.clock),
        database=world.database,
        listen_url=database_url,
    )
    task = asyncio.create_task(consumer.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _until_rows(world: World, count: int) -> list[AuditRow]:
    async with asyncio.timeout(5):
        while True:
            rows = await world.rows()
            if len(rows) >= count:
                return rows
            await asyncio.sleep(0.02)


async def test_events_of_every_topic_arrive_in_the_chain(
    postgres_world: PostgresWorld, connect_as: ConnectAs, database_url: str
) -> None:
    types = [type_ for topic in TOPICS for type_ in topic.types]

    async with consuming(postgres_world, database_url):
        for topic in TOPICS:
            source = "gateway" if topic.owner == "*" else topic.owner
            outbox = Outbox(writer := await connect_as(source))
            async with writer.transaction() as connection:
                await outbox.append(connection, [an_event(type=type_, source=source) for type_ in topic.types])
        outbox.wake_consumers()
        rows = await _until_rows(postgres_world, len(types))

    assert [row.type for row in rows] == types
    assert (await postgres_world.verify()).problems == []


async def test_a_real_payment_event_is_recorded_without_a_full_account_number(
    postgres_world: PostgresWorld, connect_as: ConnectAs, database_url: str
) -> None:
    confirm = await connect_as("confirm")
    outbox = Outbox(confirm)
    payment_id: UUID = new_id()
    data = PaymentChanged(
        payment_id=payment_id,
        transaction_id="txn_001",
        customer_id="cust_001",
        state="COMPLETED",
        path=["RECEIVED", "APPROVED", "COMPLETED"],
        amount_minor=100_000,
        currency="USD",
        debtor_account=mask_account("ACC0000000001"),
        creditor_account=mask_account("DE02120300000000202051"),
        at=NOON,
    )
    event = event_of(
        id=new_id(),
        source="confirm",
        type="payment.completed",
        subject=str(payment_id),
        version=3,
        time=NOON,
        data=data,
        traceparent="",
    )

    async with consuming(postgres_world, database_url):
        async with confirm.transaction() as connection:
            await outbox.append(connection, [event])
        outbox.wake_consumers()
        (row,) = await _until_rows(postgres_world, 1)

    assert row.data["creditor_account"] == "…2051"
    assert msgspec.convert(row.data, PaymentChanged, strict=False) == data
    stored = await postgres_world.owner.fetchval("SELECT row_to_json(a)::text FROM audit.audit_logs AS a")
    assert "DE02120300000000202051" not in stored
    assert "ACC0000000001" not in stored
