"""What raises an alert is made to happen, and somebody is told (see tests.support.watched): processes and servers."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from payflow.run.inspection import owner_url
from tests.support.alertmanager import Alertmanager, Listener, running_alertmanager
from tests.support.watched import News, World, a_payer, kept_down, paying_on

pytestmark = pytest.mark.timeout(240)


async def test_a_service_that_stands_still_pages_somebody_who_is_told_when_it_is_back(world: World) -> None:
    pid = int(world.system.processes()["kyc"]["pid"])

    os.kill(pid, signal.SIGSTOP)
    try:
        told = await asyncio.to_thread(world.told, "ProcessDown", process="kyc")
    finally:
        os.kill(pid, signal.SIGCONT)
    back = await asyncio.to_thread(world.told, "ProcessDown", "resolved", process="kyc")

    assert (told.to, back.to) == ("pages", "pages")


async def test_payments_that_take_long_page_somebody(world: World) -> None:
    async def hold_up() -> None:
        pid = int((await asyncio.to_thread(world.system.processes))["account"]["pid"])
        try:
            while True:
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(1)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.2)
        finally:
            os.kill(pid, signal.SIGCONT)

    async with a_payer(world.system) as (payer, payee), paying_on(payer, payee):
        holding = asyncio.create_task(hold_up())
        try:
            burning = await asyncio.to_thread(world.told, "SlowPaymentsBurn")
            slowly = await asyncio.to_thread(world.told, "SlowPaymentsBurnSlowly")
        finally:
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)

    assert (burning.to, slowly.to) == ("pages", "tickets")


async def test_events_that_nobody_can_read_are_a_ticket_and_so_are_the_errors_about_them(world: World) -> None:
    connection = await asyncpg.connect(owner_url(world.system.instance.data_dir))
    for _ in range(8):
        await connection.execute(
            "INSERT INTO event_log.batch (types, events, event_count) VALUES ('{payment.completed}', '\\x00', 1)"
        )
    await connection.close()

    aside = await asyncio.to_thread(world.told, "EventsSetAside", consumer="audit")
    errors = await asyncio.to_thread(world.told, "ErrorsLogged", process="audit")

    assert (aside.to, errors.to) == ("tickets", "tickets")


async def test_a_certificate_that_ends_soon_is_a_ticket_and_so_is_the_snapshot_of_sanctions_lists(world: World) -> None:
    # Both are so from the start.
    certificate = await asyncio.to_thread(world.told, "CertificateExpires", is_new=False)
    lists = await asyncio.to_thread(world.told, "SanctionsListStale", is_new=False, list="OFAC-SDN")

    assert certificate.labels["instance"] == f"https://{world.short_lived}/live"
    assert (certificate.to, lists.to) == ("tickets", "tickets")


async def test_an_address_that_does_not_answer_pages_somebody(world: World) -> None:
    pid = int(world.system.processes()["gateway-1"]["pid"])

    os.kill(pid, signal.SIGSTOP)
    try:
        told = await asyncio.to_thread(world.told, "ProbeFails", instance=f"{world.system.service_url(1)}/live")
    finally:
        os.kill(pid, signal.SIGCONT)

    assert told.to == "pages"


async def test_redis_that_is_gone_is_a_ticket_and_payments_go_on(world: World) -> None:
    pid = int(world.system.processes()["valkey"]["pid"])

    os.kill(pid, signal.SIGSTOP)
    try:
        told = await asyncio.to_thread(world.told, "RedisDown")
    finally:
        os.kill(pid, signal.SIGCONT)

    assert told.to == "tickets"
    await asyncio.to_thread(world.told, "RedisDown", "resolved")


async def test_a_database_that_is_gone_pages_somebody(world: World) -> None:
    async with kept_down(world.system, "postgres"):
        told = await asyncio.to_thread(world.told, "PostgresDown")

    assert told.to == "pages"
    await asyncio.to_thread(world.told, "PostgresDown", "resolved")


def test_what_was_told_before_a_test_or_before_it_ended_the_cause_is_no_news_to_it() -> None:
    listener, at = Listener(), datetime.now(UTC)
    world = World(None, None, Alertmanager("", listener), "", News())

    def tell(status: str, seconds: float, number: str) -> None:
        since = {"startsAt": at.isoformat(), "endsAt": "0001-01-01T00:00:00Z"}
        since["startsAt" if status == "firing" else "endsAt"] = (at + timedelta(seconds=seconds)).isoformat()
        alert = {"labels": {"alertname": "RedisDown", "number": number}, "status": status, **since}
        listener.take("tickets", {"alerts": [alert]})

    tell("firing", -2, "of an earlier test")
    tell("resolved", -1, "of an earlier test")
    old = world.told("RedisDown", is_new=False)
    world.news.begin()
    tell("firing", 1, "of this test")
    tell("resolved", 0, "before it was seen")
    fires = world.told("RedisDown")
    tell("resolved", 60, "of this test")
    over = world.told("RedisDown", "resolved")
    listener.close()

    assert [told.labels["number"] for told in (old, fires, over)] == [
        "of an earlier test",
        "of this test",
        "of this test",
    ]


def test_an_alert_goes_to_those_whom_its_severity_names_and_a_dead_processs_log_is_no_news() -> None:
    with running_alertmanager() as alerts:
        alerts.raise_alert("ProcessDown", severity="page", process="kyc")
        alerts.raise_alert("ErrorsLogged", severity="ticket", process="kyc")
        alerts.raise_alert("ErrorsLogged", severity="ticket", process="risk")
        alerts.raise_alert("CertificateExpires", severity="ticket", instance="https://x")

        alerts.listener.wait_for(lambda told: told.name == "ProcessDown", seconds=20)
        alerts.listener.wait_for(lambda told: told.name == "ErrorsLogged", seconds=20)
        alerts.listener.wait_for(lambda told: told.name == "CertificateExpires", seconds=20)

    assert {(told.name, told.to, told.labels.get("process")) for told in alerts.listener.told} == {
        ("ProcessDown", "pages", "kyc"),
        ("ErrorsLogged", "tickets", "risk"),
        ("CertificateExpires", "tickets", None),
    }
