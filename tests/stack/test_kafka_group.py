"""What a member of a consumer group does besides handling: it passes over, gathers, and tells how far it has come."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from functools import partial

from prometheus_client import REGISTRY

from payflow.kernel.envelope import Event
from payflow.platform.eventlog.kafka.reading import LogReader
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
