"""What a member of a consumer group does besides handling: it passes over, gathers, and tells how far it has come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from prometheus_client import REGISTRY

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.kafka.reading import COMMIT_EVERY_S, LogReader
from payflow.platform.postgres import Connection
from tests.builders_event_log import running, until
from tests.builders_kafka import KafkaLog
from tests.fakes_audit import an_event


def _committed(log: KafkaLog, consumer: str = "audit") -> int:
    """How many records of the topic the group has told that it has handled."""
    reader = LogReader(log.kafka, group=log.kafka.group(consumer), client_id="test-committed")
    try:
        return sum(reader.committed("payments").values())
    finally:
        reader.close()


async def test_what_is_read_while_nobody_listens_is_passed_over_and_the_rest_is_handled(log: KafkaLog) -> None:
    listens = False

    async def nobody_listens() -> bool:
        return not listens

    async def is_passed_over() -> bool:
        return await asyncio.to_thread(_committed, log) == 1

    async with running(log.any_consumer(nobody_listens=nobody_listens)):
        await log.append(an_event(subject="before"))
        await until(is_passed_over, seconds=log.patience_s)
        listens = True
        await log.append(an_event(subject="after"))
        await log.until_version("after", 1)

    assert await log.effects() == [("after", 1)]


async def test_the_group_knows_of_what_was_handled_soon_after_and_at_once_when_a_member_leaves(log: KafkaLog) -> None:
    async def is_known() -> bool:
        return await asyncio.to_thread(_committed, log) == 1

    async with running(log.any_consumer()):
        await log.append(an_event(subject="one"))
        await log.until_version("one", 1)
        await until(is_known, seconds=COMMIT_EVERY_S + log.patience_s)
        await log.append(an_event(subject="two"))
        await log.until_version("two", 1)

    assert await asyncio.to_thread(_committed, log) == 2


async def test_under_load_the_events_of_many_payments_share_a_transaction(log: KafkaLog) -> None:
    handed: list[int] = []

    async def handler(connection: Connection, events: Sequence[Event]) -> None:
        handed.append(len(events))
        await log.write_effects(connection, events)

    async with running(log.any_consumer(handler)):
        await log.stream(payments=10, versions=100, pause_s=0.005)
        await log.until_all(payments=10, versions=100)

    assert sum(handed) == 1000
    assert len(handed) < 100
    await log.assert_once_and_in_order(payments=10, versions=100)


async def test_events_behind_one_that_waits_count_as_lag_whatever_partition_they_are_in(log: KafkaLog) -> None:
    is_away = True

    async def refuse(connection: Connection, events: Sequence[Event]) -> None:
        if is_away:
            raise OSError("away")
        await log.write_effects(connection, events)

    def lag() -> float:
        return REGISTRY.get_sample_value("payflow_event_lag_events", {"consumer": "audit"}) or 0.0

    async def is_one() -> bool:
        return lag() == 1

    async def is_all() -> bool:
        return lag() == 61

    async def is_none() -> bool:
        return lag() == 0

    async with running(log.any_consumer(refuse)):
        await log.append(an_event(subject="first"))
        await until(is_one, seconds=log.patience_s)
        await log.append(*(an_event(subject=f"payment-{number}") for number in range(60)))
        await until(is_all, seconds=log.patience_s)
        is_away = False
        await until(is_none, seconds=log.patience_s)

    assert len(await log.effects()) == 61
