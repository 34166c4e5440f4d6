"""What a service cannot do to the event log, and how an event that was set aside is had after all."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec
import pytest

from payflow.contracts.topics import TOPICS
from payflow.kernel.envelope import Event
from payflow.platform.clock import SystemClock
from payflow.platform.eventlog import Consumer, Outbox
from payflow.platform.eventlog.dead_letters import list_dead_letters, request_retry
from payflow.platform.eventlog.origin import flaw_of
from payflow.platform.postgres import Connection
from payflow.services.audit.consumer import EVERY_TOPIC, Recorder
from tests.builders import new_id
from tests.builders_event_log import ConnectAs, Log, empty_log, running, until, until_waiting
from tests.fakes_audit import an_event


@pytest.fixture
async def log(database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]) -> AsyncIterator[Log]:
    async with empty_log(database_url, connect_as, password_files) as log:
        yield log


async def _append_as(connect_as: ConnectAs, service: str, *events: Event) -> None:
    database = await connect_as(service)
    async with database.transaction() as connection:
        await Outbox(database).append(connection, events)


# --- forgeries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO event_log.batch (source, types, events, event_count) VALUES ('payflow_confirm', '{a}', '', 1)",
        "INSERT INTO event_log.batch (position, types, events, event_count) VALUES (1000000, '{a}', '', 1)",
        "INSERT INTO event_log.batch (created_at, types, events, event_count) VALUES ('1999-01-01', '{a}', '', 1)",
        "UPDATE event_log.consumer SET name = 'audit' WHERE name = 'risk'",
        "INSERT INTO event_log.consumer (name, position) VALUES ('audit', 1000000)",
        "INSERT INTO event_log.dead_letter (consumer, event_id, position, source, events, cause) "
        "VALUES ('audit', '00000000-0000-0000-0000-000000000001', 1, 'x', '', 'x')",
        "SELECT event_log.drop_old_batches(now())",
        "SELECT event_log.count_dead_letters()",
    ],
)
async def test_a_consumers_role_may_not_say_who_wrote_or_stand_in_for_another(
    log: Log, connect_as: ConnectAs, statement: str
) -> None:
    risk = await connect_as("risk")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await risk.execute(statement)


async def test_a_consumers_role_moves_no_other_position(log: Log, connect_as: ConnectAs) -> None:
    risk = await connect_as("risk")
    await log.append(an_event())
    await log.drain(log.consumer(name="audit"))

    moved = await risk.execute("UPDATE event_log.consumer SET position = 999 WHERE name = 'audit'")

    assert moved == "UPDATE 0"
    assert await log.position("audit") == 1


@pytest.mark.parametrize(
    ("writer", "event"),
    [
        ("kyc", an_event(type="payment.rejected", source="confirm")),
        ("kyc", an_event(type="payment.rejected", source="kyc")),
        ("kyc", an_event(type="security.user_created", source="gateway")),
        ("confirm", an_event(type="review.decided", source="confirm")),
    ],
    ids=["in another's name", "of another's topic", "everybody's topic in another's name", "a clearing by confirm"],
)
async def test_a_forged_event_has_no_effect_and_is_set_aside(
    log: Log, connect_as: ConnectAs, writer: str, event: Event
) -> None:
    await _append_as(connect_as, writer, event)
    await log.append(an_event(subject="genuine"))

    await log.drain(log.consumer(topics=EVERY_TOPIC))

    assert await log.effects() == [("genuine", 1)]
    (letter,) = await list_dead_letters(log.owner)
    assert (letter.event_id, letter.source) == (event.id, f"payflow_{writer}")
    assert letter.cause.startswith("forged: ")


def test_every_owner_may_tell_of_its_topics_and_nobody_else() -> None:
    services = {topic.owner for topic in TOPICS} - {"*"}

    believed = {
        (topic.name, service)
        for topic in TOPICS
        for service in services
        if flaw_of(an_event(type=topic.types[0], source=service), written_by=f"payflow_{service}") is None
    }

    wanted = {(topic.name, service) for topic in TOPICS for service in services if topic.owner in ("*", service)}
    assert believed == wanted


@pytest.mark.parametrize("written", [b"\x90\x90", b"", b"\x91" * 5000 + b"\xc0"], ids=["no events", "empty", "deep"])
async def test_a_batch_that_cannot_be_read_is_set_aside_and_the_rest_goes_on(log: Log, written: bytes) -> None:
    await log.writer.execute(
        "INSERT INTO event_log.batch (types, events, event_count) VALUES ('{payment.completed}', $1, 1)", written
    )
    await log.append(an_event(subject="after"))

    await log.drain(log.consumer())

    assert await log.effects() == [("after", 1)]
    (letter,) = await list_dead_letters(log.owner)
    assert (letter.types, letter.source) == ([], "payflow_confirm")


# --- replaying --------------------------------------------------------------------------------------------------


class Picky:
    """A handler that cannot stand some subjects until it is repaired."""

    def __init__(self, log: Log, *subjects: str) -> None:
        self._log = log
        self.refused = set(subjects)

    async def __call__(self, connection: Connection, events: Sequence[Event]) -> None:
        await self._log.write_effects(connection, events)
        if any(event.subject in self.refused for event in events):
            raise ValueError("not this one")


async def test_a_dead_letter_is_handled_after_all_when_it_is_replayed(log: Log) -> None:
    picky = Picky(log, "x", "y")
    consumer = log.consumer(picky)
    x = an_event(subject="x")
    await log.append(x, an_event(subject="y"), an_event(subject="z"))
    await log.drain(consumer)
    picky.refused.clear()

    asked = await request_retry(log.owner, consumer="audit", event_id=x.id)
    await log.drain(consumer)

    assert asked == 1
    assert await log.effects() == [("z", 1), ("x", 1)]
    assert [letter.subject for letter in await list_dead_letters(log.owner)] == ["y"]


async def test_all_dead_letters_of_a_consumer_are_replayed_at_once(log: Log) -> None:
    picky = Picky(log, "x", "y")

    async def two_are_set_aside() -> bool:
        return len(await list_dead_letters(log.owner)) == 2

    await log.append(an_event(subject="x"), an_event(subject="y"))
    async with running(log.consumer(picky)):
        await until(two_are_set_aside)
        picky.refused.clear()
        asked = await request_retry(log.owner, consumer="audit", event_id=None)
        effects = await log.until_effects(2)

    assert asked == 2
    assert effects == [("x", 1), ("y", 1)]
    assert await list_dead_letters(log.owner) == []


async def test_a_dead_letter_that_fails_again_stays_one_and_is_not_tried_for_ever(log: Log) -> None:
    consumer = log.consumer(Picky(log, "x"))
    x = an_event(subject="x")
    await log.append(x)
    await log.drain(consumer)

    await request_retry(log.owner, consumer="audit", event_id=x.id)
    await log.drain(consumer)

    (letter,) = await list_dead_letters(log.owner)
    assert (letter.event_id, letter.replay_requested_at, letter.cause) == (x.id, None, "ValueError('not this one')")
    assert await log.effects() == []


async def test_a_forged_event_stays_without_effect_when_it_is_replayed(log: Log, connect_as: ConnectAs) -> None:
    await _append_as(connect_as, "kyc", an_event(type="payment.rejected", source="confirm"))
    await log.drain(log.consumer())

    await request_retry(log.owner, consumer="audit", event_id=None)
    await log.drain(log.consumer())

    assert await log.effects() == []
    assert len(await list_dead_letters(log.owner)) == 1


async def test_a_replay_asks_only_the_named_consumer(log: Log) -> None:
    await log.append(an_event(subject="x"))
    await log.drain(log.consumer(Picky(log, "x")))

    assert await request_retry(log.owner, consumer="risk", event_id=None) == 0
    assert await request_retry(log.owner, consumer="audit", event_id=new_id()) == 0


async def _payflow(url: str, *arguments: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "payflow.run.main", "events", *arguments),
        env={**os.environ, "PAYFLOW_POSTGRES_URL": url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode, out.decode(), err.decode()


async def test_an_operator_lists_and_replays_dead_letters_on_the_command_line(log: Log, database_url: str) -> None:
    picky = Picky(log, "x")
    x = an_event(subject="x")
    await log.append(x)
    await log.drain(log.consumer(picky))
    picky.refused.clear()

    _, listed, _ = await _payflow(database_url, "dlq", "--json")
    _, table, _ = await _payflow(database_url, "dlq")
    code, told, err = await _payflow(database_url, "replay", "audit", str(x.id))
    await log.drain(log.consumer(picky))
    refused, _, reason = await _payflow(database_url, "replay", "audit", "--all")

    (letter,) = json.loads(listed)
    assert (letter["event_id"], letter["consumer"], letter["cause"]) == (
        str(x.id),
        "audit",
        "ValueError('not this one')",
    )
    assert str(x.id) in table
    assert (code, told) == (0, "1 event will be handed to audit again as soon as it runs.\n"), err
    assert await log.effects() == [("x", 1)]
    assert refused == 1
    assert "set aside no such event" in reason


# --- the audit trail --------------------------------------------------------------------------------------------


async def test_the_audit_trail_waits_for_an_event_that_it_cannot_record(log: Log) -> None:
    consumer = Consumer(
        name="audit",
        topics=EVERY_TOPIC,
        handler=Recorder(clock=SystemClock()),
        database=log.reader,
        listen_url=log.url,
    )
    event = an_event(subject="recorded in the end")

    async def is_recorded() -> bool:
        return event.id in await _recorded(log)

    await log.owner.execute("ALTER TABLE audit.audit_logs ADD CONSTRAINT broken CHECK (version > 1) NOT VALID")
    await log.append(event)
    try:
        async with running(consumer):
            await until_waiting(consumer)
            before = await _recorded(log)
            await log.owner.execute("ALTER TABLE audit.audit_logs DROP CONSTRAINT broken")
            await until(is_recorded)
    finally:
        await log.owner.execute("ALTER TABLE audit.audit_logs DROP CONSTRAINT IF EXISTS broken")

    assert event.id not in before
    assert await list_dead_letters(log.owner) == []


async def _recorded(log: Log) -> set[UUID]:
    return {row["event_id"] for row in await log.owner.fetch("SELECT event_id FROM audit.audit_logs")}


def test_a_version_that_no_database_can_hold_is_refused_before_any_handler_sees_it() -> None:
    event = msgspec.structs.replace(an_event(), version=2**63)

    assert flaw_of(event, written_by="payflow_confirm") == "unreadable: its version is no 64-bit number"
