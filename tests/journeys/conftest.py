"""One instance for all journeys. Every test makes customers of its own, so that none disturbs another's velocity."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from payflow.platform.crypto import ensure_column_keys
from payflow.platform.rpc.identity import ensure_keys
from payflow.run.local_rpc import LocalServices, local_services
from payflow_dev.otlp.receiver import Receiver
from tests.builders_other_bank import Town
from tests.conftest import role_url
from tests.support.api import Api, Client, Customer, Factory
from tests.support.other_bank import OtherBank
from tests.support.system import RELAXED, System, running_system


@pytest.fixture(scope="session")
def collector() -> Iterator[Receiver]:
    """Where the instance sends its traces and metrics."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="session")
def system(collector: Receiver) -> Iterator[System]:
    """The instance. After the last journey books and audit trail must be whole, and no log may tell of a bug."""
    with running_system(**RELAXED, PAYFLOW_OTLP_ENDPOINT=collector.url, PAYFLOW_OTLP_METRICS_S="1") as system:
        yield system
        assert_whole(system)


def assert_whole(system: System) -> None:
    """Ledger and audit trail verify, and no process met an error that it had not expected."""
    ledger = system.run("ledger", "verify")
    audit = system.run("audit", "verify")
    assert ledger.returncode == 0, ledger.stdout + ledger.stderr
    assert audit.returncode == 0, audit.stdout + audit.stderr
    bugs = system.logged_bugs()
    assert not bugs, "\n".join(bugs)


@pytest.fixture(scope="session")
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(limit=200)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield session


@pytest.fixture(scope="session")
async def services(system: System) -> AsyncIterator[LocalServices]:
    """The services' own operations, with the command line's identity."""
    async with local_services(system.instance) as services:
        yield services


@pytest.fixture(scope="session")
async def api(system: System, session: aiohttp.ClientSession) -> Api:
    """The public API."""
    return Api(session, system.url)


@pytest.fixture(scope="session")
async def make(api: Api, services: LocalServices) -> Factory:
    """Makes customers."""
    return Factory(api=api, services=services)


@pytest.fixture(scope="session")
async def bystander(make: Factory) -> Customer:
    """A customer for requests that are refused before anything happens: whoever moves money makes a customer."""
    return await make.customer()


@pytest.fixture(scope="session")
async def operators(system: System, api: Api) -> dict[str, Client]:
    """A signed-in user of each operator role, by the role's name."""
    names = ("operator", "compliance", "auditor", "admin")
    clients = await asyncio.gather(*(api.sign_in(name, system.operator_password(name)) for name in names))
    return dict(zip(names, clients, strict=True))


@pytest.fixture(scope="session")
async def other_bank(system: System, session: aiohttp.ClientSession) -> OtherBank:
    """The simulated other bank."""
    return OtherBank(Api(session, system.other_bank_url))


@pytest.fixture(scope="module")
async def started_town(
    tmp_path_factory: pytest.TempPathFactory, database_url: str, password_files: dict[str, Path]
) -> AsyncIterator[Town]:
    """partner_bank and the simulated other bank as two applications, with the services beside them in memory."""
    folder = tmp_path_factory.mktemp("town")
    ensure_keys(folder / "keys", ["account", "ofac", "confirm", "partner_bank", "other_bank", "gateway"])
    ensure_column_keys(folder / "column_keys.json")
    urls = {name: role_url(database_url, name, password_files) for name in ("partner_bank", "other_bank")}
    town = Town(folder=folder, database_urls=urls)
    for name in ("account", "ofac", "confirm", "partner_bank", "other_bank"):
        await town.start(name)
    yield town
    await town.close()


@pytest.fixture
async def town(started_town: Town) -> Town:
    """The town, with a bank that accepts and lists that name nobody."""
    await started_town.control(mode="accept")
    started_town.ofac.listed = set()
    started_town.ofac.failure = None
    return started_town
