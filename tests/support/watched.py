"""A running Payflow under the eyes of the real Prometheus with the shipped rules, of the exporters, and of the real
Alertmanager with the shipped routes.

The rules are the shipped ones but for how long a condition holds before its alert fires: not at all, here.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import aiohttp
import asyncpg
import psutil

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

PATIENCE_S: Final = 90.0
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
Owner: TypeAlias = "asyncpg.Connection[Any]"


@dataclass
class News:
    """What is news to a test: when it began, and when it last saw an alert fire, whose cause it then ends."""

    began_at: datetime = LONG_AGO
    seen_at: datetime = LONG_AGO

    def begin(self) -> None:
        """What was told before is none."""
        self.began_at = self.seen_at = datetime.now(UTC)


class World(NamedTuple):
    """All of it, running."""

    system: System
    prometheus: Prometheus
    alerts: Alertmanager
    short_lived: str
    news: News

    def told(self, name: str, status: str = "firing", *, is_new: bool = True, **labels: str) -> Told:
        """Wait until somebody was told so: of an alert that began in the present test, unless `is_new` says that it may
        be older; or that it is over, and this since the last time that one of this test was seen firing."""
        since = {"firing": self.news.began_at if is_new else LONG_AGO, "resolved": self.news.seen_at}[status]

        def is_wanted(told: Told) -> bool:
            is_it = (told.name, told.status) == (name, status) and labels.items() <= told.labels.items()
            return is_it and told.since >= since

        told = self.alerts.listener.wait_for(is_wanted, seconds=PATIENCE_S)
        if status == "firing":
            self.news.seen_at = datetime.now(UTC)
        return told


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


@contextmanager
def running_world(folder: Path, *options: str) -> Iterator[World]:
    """All of it, started with these options of `up`; logs of the exporters go into the folder."""
    with running_system(*options, **RELAXED) as system, watched(system, folder) as world:
        yield world


@contextmanager
def watched(
    system: System, folder: Path, *, postgres_url: str | None = None, further: Mapping[str, str] | None = None
) -> Iterator[World]:
    """A running instance under all these eyes, and those of `further` exporters ("host:port" by job).

    `postgres_url`: where its database is, as the owner, if it is not its own.
    """
    with ExitStack() as stack:
        alerts = stack.enter_context(running_alertmanager())
        short_lived = stack.enter_context(_server_with_certificate(days=5))
        prober = stack.enter_context(
            running_exporter(
                "blackbox", [f"--config.file={ROOT}/deploy/blackbox/blackbox.yml"], log=folder / "blackbox.log"
            )
        )
        servers = stack.enter_context(server_exporters(system, folder, postgres_url=postgres_url))
        probed = [f"{system.service_url(1)}/live", f"https://{short_lived}/live"]
        eyes = Watched(servers | dict(further or {}), [alerts.address], prober.address, probed)
        targets = {row.name: system.service_url(row.port_offset).removeprefix("http://") for row in SERVICES}
        prometheus = stack.enter_context(running_prometheus(targets, watched=eyes, patience="0s"))
        prometheus.wait_until(f'count(up{{job="payflow"}} == 1) == {len(SERVICES)}')
        yield World(system, prometheus, alerts, short_lived, News())


@asynccontextmanager
async def paying_on(payer: Customer, payee: Customer) -> AsyncIterator[None]:
    """Four payments at a time, one after the other, whatever becomes of them; the first has been made."""
    await payer.has_paid(payee.account, "1.00")
    is_over = asyncio.Event()

    async def pay_on() -> None:
        while not is_over.is_set():
            await payer.pay(payee.account, "1.00")
            await asyncio.sleep(0.05)

    work = [asyncio.create_task(pay_on()) for _ in range(4)]
    try:
        yield
    finally:
        is_over.set()
        await asyncio.gather(*work, return_exceptions=True)


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


@asynccontextmanager
async def an_owner(system: System) -> AsyncIterator[Owner]:
    """A connection as the database's owner, who may do what no service may."""
    connection = await asyncpg.connect(owner_url(system.instance.data_dir))
    try:
        yield connection
    finally:
        await connection.close()


async def never_verified(owner: Owner) -> None:
    """The ledger was made three days ago, and not verified since."""
    await owner.execute("DELETE FROM account.ledger_verification")
    await owner.execute("UPDATE account.accounts SET opened_at = now() - interval '3 days'")


async def verified_long_ago(owner: Owner) -> None:
    """The ledger was last verified three days ago: the service does it again at its start, whatever the hour."""
    await owner.execute("DELETE FROM account.ledger_verification")
    await owner.execute(
        "INSERT INTO account.ledger_verification "
        "(began_at, verified_at, accounts, entries, postings, open_holds, broken) "
        "VALUES (now() - interval '3 days', now() - interval '3 days', 0, 0, 0, 0, '{}')"
    )
