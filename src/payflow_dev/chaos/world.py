"""A running instance with its customers, the proxies between its processes, and what faults are done with."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from payflow.run import control
from payflow.run.inspection import owner_url
from payflow.run.instance import Instance
from payflow.run.invariants.check import check_database
from payflow.run.local_rpc import LocalServices, local_services
from payflow_dev.bench.population import CURRENCY, OPENING_BALANCE_MINOR, Customer, make_customers
from payflow_dev.bench.records import make_records, new_password, sign_in
from payflow_dev.bench.target import LOOPBACK, Target, ended_by_sigterm, new_instance, remove, settings_for_ours
from payflow_dev.chaos.clients import Clients
from payflow_dev.chaos.clock import Clocks
from payflow_dev.chaos.disk import SmallDisk
from payflow_dev.chaos.faults import Tools
from payflow_dev.chaos.final import final_read
from payflow_dev.chaos.history import History, Opening
from payflow_dev.chaos.incoming import OtherBank
from payflow_dev.chaos.instance import Processes, start_proxies
from payflow_dev.chaos.mix import BANKS
from payflow_dev.chaos.office import Office, hire
from payflow_dev.chaos.pgwire import PostgresLink
from payflow_dev.chaos.plan import CLOCK_SHIFT, DISK_FULL, LONG_FROZEN
from payflow_dev.chaos.proxy import Director, Proxy
from payflow_dev.chaos.stand_in import StandIns
from payflow_dev.chaos.wire import Wire

# So long is waited; how soon it must be quiet is a limit of the summary.
QUIET_WITHIN_S: Final = 120.0
READ_WITHIN_S: Final = 60.0
READ_EACH_S: Final = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """How an instance is started: with which customers, settings and product, and which means for faults.

    `source`: a folder with another `payflow` package to be started in place of this one. `means`: disk-full and
    clock-shift need a disk of their own and a library; `only_direct`: services call one another without proxies;
    `has_office`: besides payments there are files, returns and reviews, officers who decide, and money from outside.
    """

    seed: int
    customers: int
    history: Path
    pause_s: float = 0.15
    means: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)
    source: Path | None = None
    only_direct: bool = False
    has_office: bool = False
    tell: Callable[[str], None] = print


@dataclass(slots=True, kw_only=True)
class World:
    """What runs. `missing`: why a means for faults cannot be had here."""

    setup: Setup
    instance: Instance
    clients: Clients
    history: History
    tools: Tools
    bank_url: str
    missing: dict[str, str]

    @property
    def customers(self) -> Sequence[Customer]:
        """Who pays."""
        return self.clients.customers

    @property
    def tokens(self) -> Sequence[str]:
        """What each of them signs in with."""
        return self.clients.tokens

    async def heal_and_read(
        self, *, quiet_within_s: float = QUIET_WITHIN_S, faults: int = 0, since: float | None = None
    ) -> float:
        """Let everything come to its end, then read it all into the history; the seconds until it was quiet.

        `faults`: how many were done; `since`: when the last one struck.
        """
        since = time.monotonic() if since is None else since
        self.tools.director.disarm()
        unsettled = await self._settle(quiet_within_s, since=since)
        quiet_after_s = await self._until_quiet(quiet_within_s, since=since)
        read_within_s = READ_WITHIN_S + len(self.clients.orders) * READ_EACH_S
        try:
            async with asyncio.timeout(read_within_s):
                await final_read(
                    clients=self.clients,
                    customers=self.customers,
                    history=self.history,
                    bank_url=self.bank_url,
                    seconds_to_quiet=quiet_after_s,
                    faults=faults,
                    unsettled=unsettled,
                )
        except TimeoutError as error:
            # The history then has no end, and the judge says what that means.
            self.setup.tell(f"the final read is not complete: {error or 'too slow'}")
        await self.clients.close()
        self.history.close()
        return quiet_after_s

    async def _settle(self, within_s: float, *, since: float) -> list[str]:
        """Wait until everybody has their final answers; the keys of what has none."""
        unsettled = await self.clients.settle(within_s=within_s)
        for reason in self.clients.given_up[:5]:
            self.setup.tell(f"a customer gave up: {reason}")
        for key in unsettled[:5]:
            self.setup.tell(f"{key} has no final answer {time.monotonic() - since:.1f} s after the last fault")
        if not unsettled:
            self.setup.tell(f"every customer has a final answer {time.monotonic() - since:.1f} s after the last fault")
        return unsettled

    async def _until_quiet(self, within_s: float, *, since: float) -> float:
        """Wait until nothing is under way; the seconds since then."""
        while time.monotonic() - since < within_s:
            findings = await check_database(self.tools.owner_url, quiet_within=timedelta(0))
            waiting = [finding for finding in findings if finding.broken or finding.waiting]
            if not waiting:
                return time.monotonic() - since
            self.setup.tell(f"waiting: {', '.join(f'{one.words} ({one.broken + one.waiting})' for one in waiting)}")
            await asyncio.sleep(1)
        return time.monotonic() - since


@contextmanager
def own_instance() -> Iterator[Instance]:
    """A place for an instance, removed at the end with all that runs there, also after Ctrl-C or SIGTERM."""
    instance = new_instance()
    with ended_by_sigterm():
        try:
            yield instance
        finally:
            remove(instance)


@asynccontextmanager
async def running_world(instance: Instance, setup: Setup) -> AsyncIterator[World]:
    """Start an instance with everything around it; stopped at the end, its history file stays."""
    director, processes = Director(), Processes(instance)
    folder = Path(tempfile.mkdtemp(prefix="payflow-chaos-", dir=instance.data_dir.parent))
    clocks, disk, stand_ins = Clocks(folder), SmallDisk(instance), StandIns(folder)
    missing = _prepare_means(setup.means, clocks=clocks, disk=disk)
    proxies, settings = await start_proxies(instance, director, processes)
    try:
        with settings_for_ours(**_environment(setup, settings) | clocks.environment()):
            status = await asyncio.to_thread(control.start, instance)
            urls = {process.name: process.url for process in status.processes}
            stand_ins.learn(LONG_FROZEN, instance=instance, postgres_url=urls["postgres"], redis_url=urls["valkey"])
        await _tell_banks(urls["other-bank"])
        async with local_services(instance) as services:
            history = History(setup.history)
            clients = await _clients(
                instance, setup, history, services=services, gateways=_gateways(proxies), bank_url=urls["other-bank"]
            )
            owner = owner_url(instance.data_dir)
            link = PostgresLink(server_url=urls["postgres"], owner_url=owner, director=director)
            try:
                yield World(
                    setup=setup,
                    instance=instance,
                    clients=clients,
                    history=history,
                    tools=Tools(processes, director, clients, link, owner, clocks, disk, stand_ins),
                    bank_url=urls["other-bank"],
                    missing=missing,
                )
            finally:
                await clients.close()
    finally:
        for proxy in proxies.values():
            await proxy.close()
        # A disk cannot be taken from a server that runs on it.
        await asyncio.to_thread(control.stop, instance)
        disk.remove()
        clocks.close()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(setup: Setup, settings: dict[str, str]) -> dict[str, str]:
    if setup.only_direct:
        settings = {name: value for name, value in settings.items() if not name.endswith("_URL")}
    other_product = {} if setup.source is None else {"PYTHONPATH": str(setup.source)}
    return settings | setup.settings | other_product


def _prepare_means(wanted: Sequence[str], *, clocks: Clocks, disk: SmallDisk) -> dict[str, str]:
    tried = {CLOCK_SHIFT: clocks.build, DISK_FULL: disk.mount}
    return {name: reason for name in wanted if (reason := tried[name]()) is not None}


def _gateways(proxies: dict[str, Proxy]) -> list[str]:
    return [f"http://{LOOPBACK}:{proxies[name].own_port}" for name in ("gateway-1", "gateway-2")]


async def _tell_banks(url: str) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.put(f"{url}/control", data=msgspec.json.encode(BANKS)) as told,
    ):
        told.raise_for_status()


async def _clients(
    instance: Instance,
    setup: Setup,
    history: History,
    *,
    services: LocalServices,
    gateways: list[str],
    bank_url: str,
) -> Clients:
    """The run's customers, and the bank's own people where there are any, all signed in."""
    url, wire = f"http://{LOOPBACK}:{instance.port}", Wire()
    customers, tokens = await _people(instance, setup, history)
    office = bank = None
    if setup.has_office:
        bank = OtherBank(url=bank_url, history=history, seed=setup.seed)
        staff = await hire(instance)
        office = Office(staff=staff, url=url, gateways=gateways, history=history, wire=wire)
    return Clients(
        url=url,
        gateways=gateways,
        customers=customers,
        tokens=tokens,
        history=history,
        services=services,
        seed=setup.seed,
        pause_s=setup.pause_s,
        wire=wire,
        office=office,
        bank=bank,
    )


async def _people(instance: Instance, setup: Setup, history: History) -> tuple[list[Customer], list[str]]:
    run_id = secrets.token_hex(3)
    customers = make_customers(count=setup.customers, run_id=run_id, seed=setup.seed)
    password = new_password()
    await make_records(instance=instance, customers=customers, password=password)
    tokens = await sign_in(
        target=Target(host=LOOPBACK, port=instance.port, status=None),
        usernames=[customer.username for customer in customers],
        password=password,
        on_each=lambda: None,
    )
    for customer in customers:
        for account in customer.accounts:
            opening: Any = Opening(
                account=account,
                customer=customer.customer_id,
                currency=CURRENCY,
                balance_minor=OPENING_BALANCE_MINOR,
            )
            history.write(opening)
    return customers, tokens.values
