"""What raises an alert is made to happen, and somebody is told: a running Payflow, the real Prometheus with the shipped
rules, the exporters, and the real Alertmanager with the shipped routes.

The rules are the shipped ones but for how long a condition holds before its alert fires: not at all, here.
What takes hours, would fill a disk, or lasts a moment only (a breaker) is shown by promtool alone (test_rules.py).
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import aiohttp
import asyncpg
import psutil
import pytest

from payflow.run.inspection import owner_url
from payflow.run.local_rpc import local_services
from payflow.run.registry import SERVICES
from payflow.run.supervisor.status import read_status
from payflow_dev.deploy.prometheus import Watched
from payflow_dev.vendors.certificates import make_certificate
from tests.support.alertmanager import Alertmanager, Told, running_alertmanager
from tests.support.api import Api, Customer, Factory
from tests.support.exporters import running_exporter, server_exporters
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.servers import ROOT
from tests.support.system import RELAXED, System, running_system

pytestmark = pytest.mark.timeout(240)
PATIENCE_S = 90.0


class World(NamedTuple):
    """All of it, running."""

    system: System
    prometheus: Prometheus
    alerts: Alertmanager
    short_lived: str

    def told(self, name: str, status: str = "firing", **labels: str) -> Told:
        """Wait until somebody was told so."""

        def is_wanted(told: Told) -> bool:
            return (told.name, told.status) == (name, status) and labels.items() <= told.labels.items()

        return self.alerts.listener.wait_for(is_wanted, seconds=PATIENCE_S)


@asynccontextmanager
async def kept_down(system: System, name: str) -> AsyncIterator[None]:
    """A process that is killed again and again, whenever it has come back."""
    is_over = asyncio.Event()

    async def keep_down() -> None:
        while not is_over.is_set():
            status = read_status(system.instance)
            pids = [one.pid for one in status.processes if one.name == name] if status else []
            for pid in filter(None, pids):
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(pid).kill()
            await asyncio.sleep(0.05)

    keeping = asyncio.create_task(keep_down())
    try:
        yield
    finally:
        is_over.set()
        await asyncio.gather(keeping, return_exceptions=True)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("watchers")
    with ExitStack() as stack:
        system = stack.enter_context(running_system(**RELAXED))
        alerts = stack.enter_context(running_alertmanager())
        short_lived = stack.enter_context(_server_with_certificate(days=5))
        prober = stack.enter_context(
            running_exporter(
                "blackbox", [f"--config.file={ROOT}/deploy/blackbox/blackbox.yml"], log=folder / "blackbox.log"
            )
        )
        others = stack.enter_context(server_exporters(system, folder))
        watched = Watched(
            others, [alerts.address], prober, [f"{system.service_url(1)}/live", f"https://{short_lived}/live"]
        )
        targets = {row.name: system.service_url(row.port_offset).removeprefix("http://") for row in SERVICES}
        prometheus = stack.enter_context(running_prometheus(targets, watched=watched, patience="0s"))
        prometheus.wait_until(f'count(up{{job="payflow"}} == 1) == {len(SERVICES)}')
        yield World(system, prometheus, alerts, short_lived)


@contextmanager
def _server_with_certificate(*, days: int) -> Iterator[str]:
    """An HTTPS server whose certificate ends in so many days."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers200)
    server.socket = make_certificate(days=days).server_context().wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


class _Answers200(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@asynccontextmanager
async def a_payer(system: System) -> AsyncIterator[tuple[Customer, Customer]]:
    """Two customers, one with money."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session, local_services(system.instance) as services:
        make = Factory(api=Api(session, system.url), services=services)
        yield await make.customer(USD="100000.00"), await make.customer()


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
    async with a_payer(world.system) as (payer, payee):
        assert (await payer.pay(payee.account, "1.00")).status == 200
        is_over = asyncio.Event()

        async def pay_on() -> None:
            while not is_over.is_set():
                await payer.pay(payee.account, "1.00")

        async def hold_up() -> None:
            pid = int((await asyncio.to_thread(world.system.processes))["account"]["pid"])
            while not is_over.is_set():
                os.kill(pid, signal.SIGSTOP)
                await asyncio.sleep(1)
                os.kill(pid, signal.SIGCONT)
                await asyncio.sleep(0.2)

        work = [asyncio.create_task(pay_on()) for _ in range(4)] + [asyncio.create_task(hold_up())]
        try:
            burning = await asyncio.to_thread(world.told, "SlowPaymentsBurn")
        finally:
            is_over.set()
            await asyncio.gather(*work, return_exceptions=True)

    assert burning.to == "pages"


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
    certificate = await asyncio.to_thread(world.told, "CertificateExpires")
    lists = await asyncio.to_thread(world.told, "SanctionsListStale", list="OFAC-SDN")

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
