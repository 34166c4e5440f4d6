"""What a service cannot do to the event log, and how an event that was set aside is had after all."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from uuid import UUID

import asyncpg
import msgspec
import pytest

from payflow.contracts.topics import TOPICS
from payflow.kernel.envelope import Event
from payflow.platform.clock import SystemClock
from payflow.platform.eventlog import Consumer
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
        "INSERT INTO event_log.inbox (consumer, event_id) VALUES ('audit', gen_random_uuid())",
        "INSERT INTO event_log.replay (consumer, topic, from_time) VALUES ('risk', 'payments', now())",
        "UPDATE event_log.relay SET position = 1000000",
        "SELECT event_log.look_after_relay()",
        "SELECT event_log.forget_handled(now(), 1000)",
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


async def test_a_forged_event_stays_without_effect_when_it_is_replayed(log: Log, connect_as: ConnectAs) -> None:
    await log.append_as(await connect_as("kyc"), an_event(type="payment.rejected", source="confirm"))
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
