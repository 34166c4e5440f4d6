"""One suite for the audit service in memory and over PostgreSQL; then every way of tampering with the real table."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
import pytest
from joserfc.jwk import OKPKey

from payflow.contracts.audit import Audit, AuditPage, AuditRow, AuditVerified, SearchAudit, VerifyAudit
from payflow.contracts.topics import TOPICS, PaymentChanged, mask_account
from payflow.kernel.envelope import Event
from payflow.kernel.errors import Conflict
from payflow.platform.eventlog import Consumer, Outbox, event_of
from payflow.platform.postgres import Database
from payflow.platform.rpc import in_process
from payflow.services.audit import usecases
from payflow.services.audit.api import AuditApi
from payflow.services.audit.consumer import EVERY_TOPIC, Recorder
from payflow.services.audit.domain import Record, hash_of
from payflow.services.audit.heads import HEADS_FILE, HeadKeys, HeadsFile
from payflow.services.audit.store import PostgresStore
from tests.builders import NOON, FixedClock, new_id
from tests.fakes_audit import FakeAuditStore, FakeHeads, an_event

ConnectAs = Callable[[str], Awaitable[Database]]

EMPTY = """
TRUNCATE audit.audit_logs;
UPDATE audit.chain_end SET sequence = 0, hash = decode(repeat('00', 32), 'hex');
UPDATE audit.head_receipt SET number = 0, digest = repeat('0', 64);
"""


class World:
    """The audit service with an empty chain of a test's own."""

    def __init__(self, store: Any, heads: Any) -> None:
        self.store = store
        self.heads = heads
        self.clock = FixedClock()
        self.api = AuditApi(store=store, heads=heads, clock=self.clock)
        self.client: Audit = in_process(Audit, self.api, caller="gateway")

    async def record(self, *events: Event) -> None:
        raise NotImplementedError

    async def search(self, query: SearchAudit) -> AuditPage:
        (page,) = await self.client.search([query])
        assert isinstance(page, AuditPage), page
        return page

    async def rows(self) -> list[AuditRow]:
        return (await self.search(SearchAudit(oldest_first=True, limit=200))).rows

    async def verify(self, from_sequence: int = 1) -> AuditVerified:
        (verified,) = await self.client.verify([VerifyAudit(from_sequence=from_sequence)])
        assert isinstance(verified, AuditVerified), verified
        return verified

    async def grow(self, *lengths: int) -> None:
        """Record so many events and sign a head, once for each number."""
        for length in lengths:
            await self.record(*(an_event(data={"amount_minor": n}) for n in range(length)))
            await self.api.sign_head()


class MemoryWorld(World):
    async def record(self, *events: Event) -> None:
        async with self.store.transaction() as chain:
            await usecases.record_events(events=events, chain=chain, now=self.clock.now())


class PostgresWorld(World):
    def __init__(self, database: Database, heads: HeadsFile, owner: asyncpg.Connection[Any], file: Path) -> None:
        super().__init__(PostgresStore(database), heads)
        self.database = database
        self.owner = owner
        self.file = file

    async def record(self, *events: Event) -> None:
        async with self.database.transaction() as connection:
            await Recorder(clock=self.clock)(connection, events)

    async def tamper(self, *statements: str) -> None:
        """Change the tables as their owner, who may do everything."""
        for statement in statements:
            await self.owner.execute(statement)

    async def rehash(self, *, start: int) -> None:
        """Compute all hashes from row `start` on anew, as somebody with the code and all rights would."""
        rows = await self.owner.fetch(
            "SELECT * FROM audit.audit_logs WHERE sequence >= $1 ORDER BY sequence", start - 1
        )
        previous: bytes = rows[0]["hash"]
        for row in rows[1:]:
            record = msgspec.structs.replace(Record(**dict(row)), previous_hash=previous)
            previous = hash_of(record)
            await self.owner.execute(
                "UPDATE audit.audit_logs SET previous_hash = $2, hash = $3 WHERE sequence = $1",
                record.sequence,
                record.previous_hash,
                previous,
            )
        end = "UPDATE audit.chain_end SET sequence = $1, hash = $2"
        await self.owner.execute(end, rows[-1]["sequence"], previous)


@pytest.fixture
async def postgres_world(connect_as: ConnectAs, database_url: str, tmp_path: Path) -> AsyncIterator[PostgresWorld]:
    owner = await asyncpg.connect(database_url)
    await owner.execute(EMPTY)
    key = OKPKey.generate_key("Ed25519").as_dict(private=True)
    heads = HeadsFile(directory=tmp_path, keys=HeadKeys.from_json(json.dumps(key)))
    heads.prepare()
    yield PostgresWorld(await connect_as("audit"), heads, owner, tmp_path / HEADS_FILE)
    await owner.close()


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

    assert verified.problems == ["rows 3 to 3: no head was signed for them"]


# --- what the service's own role may do -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_logs SET subject = 'x'",
        "DELETE FROM audit_logs",
        "TRUNCATE audit_logs",
        "DELETE FROM chain_end",
        "DELETE FROM head_receipt",
        "ALTER TABLE audit_logs DISABLE TRIGGER ALL",
        "DROP TABLE audit_logs",
        "SELECT * FROM account.accounts",
    ],
)
async def test_the_services_role_cannot_change_or_remove_what_is_recorded(
    postgres_world: PostgresWorld, statement: str
) -> None:
    await postgres_world.grow(2)

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await postgres_world.database.execute(statement)

    assert (await postgres_world.verify()).problems == []


async def test_two_writers_do_not_fork_the_chain(postgres_world: PostgresWorld) -> None:
    await asyncio.gather(*(postgres_world.record(an_event(), an_event()) for _ in range(4)))

    verified = await postgres_world.verify()

    assert (verified.rows, verified.problems) == (8, [])


# --- tampering with the table -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("data = '{\"amount_minor\":999}'", "row 3: its contents do not match its hash"),
        ("data = '{ \"amount_minor\":2}'", "row 3: its contents do not match its hash"),
        ("subject = 'another'", "row 3: its contents do not match its hash"),
        ("type = 'payment.rejected'", "row 3: its contents do not match its hash"),
        ("source = 'account'", "row 3: its contents do not match its hash"),
        ("version = version + 1", "row 3: its contents do not match its hash"),
        ("event_id = gen_random_uuid()", "row 3: its contents do not match its hash"),
        ("traceparent = ''", "row 3: its contents do not match its hash"),
        ("occurred_at = occurred_at + interval '1 microsecond'", "row 3: its contents do not match its hash"),
        ("recorded_at = recorded_at - interval '1 hour'", "row 3: its contents do not match its hash"),
        ("hash = sha256('x')", "row 3: its contents do not match its hash"),
        ("previous_hash = sha256('x')", "row 3: it does not continue row 2"),
    ],
    ids=lambda text: text.split(" =")[0] if " = " in text else "",
)
async def test_an_edit_of_any_column_is_found(postgres_world: PostgresWorld, change: str, problem: str) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper(f"UPDATE audit.audit_logs SET {change} WHERE sequence = 3")

    assert problem in (await postgres_world.verify()).problems


async def test_a_row_edited_together_with_its_hash_is_found_by_the_next_row(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper("UPDATE audit.audit_logs SET data = '{}' WHERE sequence = 3")
    row = await postgres_world.owner.fetchrow("SELECT * FROM audit.audit_logs WHERE sequence = 3")
    assert row is not None
    await postgres_world.owner.execute(
        "UPDATE audit.audit_logs SET hash = $1 WHERE sequence = 3", hash_of(Record(**dict(row)))
    )

    assert (await postgres_world.verify()).problems == ["row 4: it does not continue row 3"]


async def test_a_row_edited_together_with_all_hashes_after_it_is_found_by_the_heads(
    postgres_world: PostgresWorld,
) -> None:
    await postgres_world.grow(5, 5)

    await postgres_world.tamper("UPDATE audit.audit_logs SET data = '{}' WHERE sequence = 3")
    await postgres_world.rehash(start=3)

    assert (await postgres_world.verify()).problems == [
        "row 5: head 1 signed another hash",
        "row 10: head 2 signed another hash",
    ]


async def test_a_deleted_row_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper("DELETE FROM audit.audit_logs WHERE sequence = 3")

    problems = (await postgres_world.verify()).problems
    assert problems == ["row 3 is missing"]


async def test_a_deleted_row_is_found_also_where_verification_begins_behind_it(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper("DELETE FROM audit.audit_logs WHERE sequence = 3")

    assert (await postgres_world.verify(from_sequence=4)).problems == ["row 4: it does not continue row 3"]


async def test_a_deleted_row_whose_gap_was_closed_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper(
        "DELETE FROM audit.audit_logs WHERE sequence = 3",
        "UPDATE audit.audit_logs SET sequence = 3 WHERE sequence = 4",
        "UPDATE audit.audit_logs SET sequence = 4 WHERE sequence = 5",
    )
    await postgres_world.rehash(start=3)

    assert (await postgres_world.verify()).problems == ["head 1 signed row 5, but the table ends at row 4"]


async def test_a_cut_tail_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3, 3)

    await postgres_world.tamper("DELETE FROM audit.audit_logs WHERE sequence > 4")

    assert (await postgres_world.verify()).problems == [
        "head 2 signed row 6, but the table ends at row 4",
        "rows 5 to 6 are missing",
    ]


async def test_a_tail_cut_together_with_the_written_end_is_found_and_no_longer_signed(
    postgres_world: PostgresWorld,
) -> None:
    await postgres_world.grow(3, 3)

    await postgres_world.tamper(
        "DELETE FROM audit.audit_logs WHERE sequence > 4",
        "UPDATE audit.chain_end SET (sequence, hash) = (SELECT a.sequence, a.hash FROM audit.audit_logs AS a "
        "WHERE a.sequence = 4)",
    )

    with pytest.raises(Conflict, match="ends at row 4, but a head of row 6 was signed"):
        await postgres_world.api.sign_head()
    assert not await postgres_world.api.heads_are_signed()
    assert (await postgres_world.verify()).problems == ["head 2 signed row 6, but the table ends at row 4"]


async def test_a_cut_tail_is_found_also_after_new_rows_took_its_place(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3, 3)

    await postgres_world.tamper(
        "DELETE FROM audit.audit_logs WHERE sequence > 4",
        "UPDATE audit.chain_end SET (sequence, hash) = (SELECT a.sequence, a.hash FROM audit.audit_logs AS a "
        "WHERE a.sequence = 4)",
    )
    await postgres_world.grow(5)

    assert (await postgres_world.verify()).problems == ["row 6: head 2 signed another hash"]


async def test_rows_that_changed_places_are_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(5)

    await postgres_world.tamper(
        "UPDATE audit.audit_logs SET sequence = 100 WHERE sequence = 2",
        "UPDATE audit.audit_logs SET sequence = 2 WHERE sequence = 4",
        "UPDATE audit.audit_logs SET sequence = 4 WHERE sequence = 100",
    )

    problems = (await postgres_world.verify()).problems
    assert "row 2: its contents do not match its hash" in problems
    assert "row 4: its contents do not match its hash" in problems


async def test_a_row_put_in_behind_the_services_back_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3)

    await postgres_world.tamper(
        "INSERT INTO audit.audit_logs SELECT 4, gen_random_uuid(), type, source, subject, version, occurred_at, "
        "recorded_at, data, traceparent, hash, sha256('x') FROM audit.audit_logs WHERE sequence = 3"
    )

    assert (await postgres_world.verify()).problems == [
        "row 4: its contents do not match its hash",
        "row 4: it is not the row that was written last (row 3)",
    ]


# --- tampering with the heads file ------------------------------------------------------------------------------


def _lines(world: PostgresWorld) -> list[str]:
    return world.file.read_text().splitlines(keepends=True)


def _forged(line: str) -> str:
    """The head as somebody without the key would write it for another history."""
    return json.dumps({**json.loads(line), "hash": "ab" * 32}) + "\n"


HeadsEdit = Callable[[Sequence[str]], Sequence[str]]


@pytest.mark.parametrize(
    ("edit", "problems"),
    [
        (lambda lines: lines[1:], ["heads 1 to 1 are missing from the heads file"]),
        (lambda lines: [lines[0], lines[2]], ["heads 2 to 2 are missing from the heads file"]),
        (lambda lines: lines[:2], ["the heads file ends at head 2, but 3 heads were signed"]),
        (lambda lines: [], ["the heads file ends at head 0, but 3 heads were signed"]),
        (lambda lines: [*lines[:2], lines[2][:40]], ["the heads file ends at head 2, but 3 heads were signed"]),
        (
            lambda lines: [*lines[:2], _forged(lines[2])],
            ["head 3: its signature is not valid", "head 3 is not the one that was signed"],
        ),
        (
            lambda lines: [lines[0], "nonsense\n", lines[2]],
            ["line 2 of the heads file cannot be read"],
        ),
    ],
    ids=["first cut off", "one taken out", "last cut off", "emptied", "torn", "forged", "made unreadable"],
)
async def test_tampering_with_the_heads_file_is_found(
    postgres_world: PostgresWorld, edit: HeadsEdit, problems: list[str]
) -> None:
    await postgres_world.grow(2, 2, 2)

    postgres_world.file.write_text("".join(edit(_lines(postgres_world))))

    assert (await postgres_world.verify()).problems == problems


async def test_a_removed_heads_file_is_found_also_after_signing_went_on(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(2, 2)

    postgres_world.file.unlink()
    await postgres_world.grow(2)

    verified = await postgres_world.verify()
    assert (verified.heads, verified.problems) == (1, ["heads 1 to 2 are missing from the heads file"])


async def test_a_rewritten_history_with_heads_of_another_key_is_found(postgres_world: PostgresWorld) -> None:
    await postgres_world.grow(3)
    postgres_world.file.unlink()
    await postgres_world.tamper(
        "UPDATE audit.audit_logs SET data = '{}' WHERE sequence = 2",
        "UPDATE audit.head_receipt SET number = 0, digest = repeat('0', 64)",
    )
    await postgres_world.rehash(start=2)
    key = json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True))
    forger = HeadsFile(directory=postgres_world.file.parent, keys=HeadKeys.from_json(key))
    await usecases.sign_head(store=postgres_world.store, heads=forger, now=NOON)

    assert (await postgres_world.verify()).problems == ["head 1: its signature is not valid"]


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
    account = await connect_as("account")
    outbox = Outbox(account)
    types = [type_ for topic in TOPICS for type_ in topic.types]
    events = [an_event(type=type_) for type_ in types]

    async with consuming(postgres_world, database_url):
        async with account.transaction() as connection:
            await outbox.append(connection, events)
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
