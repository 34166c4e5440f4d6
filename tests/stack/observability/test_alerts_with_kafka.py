"""What raises an alert is made to happen, and somebody is told (see tests.support.watched): events on their way."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator

import asyncpg
import msgspec
import pytest

from payflow.run.inspection import owner_url
from payflow_dev.kafka.jars import fetch
from tests.fakes_audit import an_event
from tests.support.watched import World, a_payer, running_world

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    fetch()
    with running_world(tmp_path_factory.mktemp("watchers"), "--kafka") as world:
        yield world


async def test_events_that_do_not_come_into_kafka_page_somebody_and_payments_go_on(world: World) -> None:
    pid = int(world.system.processes()["kafka"]["pid"])
    async with a_payer(world.system) as (payer, payee):
        os.kill(pid, signal.SIGSTOP)
        try:
            answer = await payer.pay(payee.account, "1.00")
            told = await asyncio.to_thread(world.told, "OutboxNotPublished")
        finally:
            os.kill(pid, signal.SIGCONT)
    back = await asyncio.to_thread(world.told, "OutboxNotPublished", "resolved")

    assert answer.status == 200
    assert (told.to, back.to) == ("pages", "pages")


async def test_a_consumer_with_ten_thousand_events_before_it_is_a_ticket(world: World) -> None:
    owner = await asyncpg.connect(owner_url(world.system.instance.data_dir))
    await owner.execute("REVOKE INSERT ON audit.audit_logs FROM payflow_audit")
    try:
        for number in range(24):
            events = [an_event(subject=f"many-{number}-{index}") for index in range(500)]
            await owner.execute("SET ROLE payflow_confirm")
            await owner.execute(
                "INSERT INTO event_log.batch (types, events, event_count) VALUES ('{payment.completed}', $1, $2)",
                msgspec.msgpack.encode(events),
                len(events),
            )
            await owner.execute("RESET ROLE")
        told = await asyncio.to_thread(world.told, "ConsumerLags", consumer="audit")
    finally:
        await owner.execute("GRANT INSERT ON audit.audit_logs TO payflow_audit")
        await owner.close()
    caught_up = await asyncio.to_thread(world.told, "ConsumerLags", "resolved", consumer="audit")

    assert (told.to, caught_up.to) == ("tickets", "tickets")
