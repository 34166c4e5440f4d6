"""What a member of a consumer group does besides handling: it passes over, gathers, and tells how far it has come."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import structlog
from prometheus_client import REGISTRY

from payflow.kernel.envelope import Event
from payflow.kernel.errors import Unavailable
from payflow.platform.eventlog.kafka.reading import LogReader
from payflow.platform.eventlog.kafka.sharing import FIRST_LOOK_S, members_of
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
    told: list[str] = []

    def tell(events: Sequence[Event]) -> None:
        told.extend(event.subject for event in events)

    async def knows(count: int) -> bool:
        return await asyncio.to_thread(_committed, log) == count

    async def is_told_of_two() -> bool:
        return "two" in told

    async with running(log.any_consumer(after_commit=tell)):
        await log.append(an_event(subject="one"))
        await until(partial(knows, 1), seconds=log.patience_s)
        await log.append(an_event(subject="two"))
        await until(is_told_of_two, seconds=log.patience_s)

    await until(partial(knows, 2), seconds=log.patience_s)


async def test_the_group_knows_of_what_was_handled_while_a_handler_takes_long(log: KafkaLog) -> None:
    goes_on = asyncio.Event()

    async def handler(connection: Connection, events: Sequence[Event]) -> None:
        if any(event.subject == "slow" for event in events):
            await goes_on.wait()
        await log.write_effects(connection, events)

    async def is_known() -> bool:
        return await asyncio.to_thread(_committed, log) == 2

    async with running(log.any_consumer(handler)):
        for quick in ("one", "two"):
            await log.append(an_event(subject=quick))
            await log.until_version(quick, 1)
        await log.append(an_event(subject="slow"))
        await until(is_known, seconds=log.patience_s)
        goes_on.set()
        await log.until_version("slow", 1)


async def test_a_partition_that_is_lost_and_comes_back_goes_on_where_the_group_stood(log: KafkaLog) -> None:
    async with log.process("consumer") as process:
        writing = asyncio.create_task(log.stream(payments=6, versions=100, pause_s=0.12))
        await log.until_version("payment-0", 5)
        process.send_signal(signal.SIGSTOP)
        # Longer than a member may be silent: the group is empty then, and what was this member's is nobody's.
        await asyncio.sleep(9)
        process.send_signal(signal.SIGCONT)
        await writing
        await log.until_all(payments=6, versions=100)

    await log.assert_once_and_in_order(payments=6, versions=100)


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


async def test_processes_that_are_more_than_a_topic_has_partitions_are_told_of_in_one_line(log: KafkaLog) -> None:
    with structlog.testing.capture_logs() as lines:
        async with AsyncExitStack() as members:

            def told() -> list[dict[str, Any]]:
                return [dict(line) for line in lines if line["event"] == "consumer.stands_by"]

            async def are_members(count: int) -> bool:
                try:
                    found = await asyncio.to_thread(members_of, log.kafka, group=log.kafka.group("audit"))
                except Unavailable:  # a group that is being made
                    return False
                return found is not None and len(found) == count

            async def is_told() -> bool:
                return any(line["processes"] == 5 for line in told())

            for _ in range(3):
                await members.enter_async_context(running(log.any_consumer()))
            await until(partial(are_members, 3), seconds=log.patience_s)
            await asyncio.sleep(FIRST_LOOK_S + 2)
            before = told()
            for _ in range(2):
                await members.enter_async_context(running(log.any_consumer()))
            await until(is_told, seconds=log.patience_s)
            await asyncio.sleep(FIRST_LOOK_S)

    *_, line = told()
    assert before == []
    assert [each["processes"] for each in told()].count(5) == 1
    assert (line["log_level"], line["consumer"], line["topic"]) == ("warning", "audit", log.kafka.topic("payments"))
    assert (line["partitions"], line["processes"]) == (3, 5)
    assert f"--alter --topic {log.kafka.topic('payments')} --partitions 5" in line["add_by"]
