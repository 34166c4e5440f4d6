"""All services are replaced while payments go on: none fails. RESTART_REQUESTS=10000 for a longer look."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Final

import aiohttp
import pytest

from payflow.run.local_rpc import local_services
from payflow.run.registry import SERVICES
from tests.support.api import Answer, Api, Customer, Factory, new_key
from tests.support.system import RELAXED, System, running_system

REQUESTS: Final = int(os.environ.get("RESTART_REQUESTS", "2000"))
CLIENTS: Final = 24


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system(**RELAXED) as system:
        yield system


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    # Connections are kept and used again, as customers' clients do, and nothing is tried twice.
    connector = aiohttp.TCPConnector(limit=CLIENTS)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


class Load:
    """Clients that pay and look without pause until `is_enough`; what came of each request."""

    def __init__(self, payers: list[Customer], payee: Customer) -> None:
        self._payers, self._payee = payers, payee
        self.outcomes: Counter[str] = Counter()
        self.failures: list[str] = []
        self.paid = 0
        self.is_restarted = False

    @property
    def requests(self) -> int:
        """How many requests were answered, or failed."""
        return sum(self.outcomes.values())

    async def run(self) -> None:
        await asyncio.gather(*(self._client(payer) for payer in self._payers))

    async def _client(self, payer: Customer) -> None:
        while not self.is_restarted or self.requests < REQUESTS:
            body, key = payer.body(self._payee.account, "0.01"), new_key()
            answer = await self._ask(payer.client.confirm(body, key=key))
            if answer is not None and answer.status == 200:
                self.paid += 1
            await self._ask(payer.client.get(f"/payments/{body['transaction_id']}"))

    async def _ask(self, request: Awaitable[Answer]) -> Answer | None:
        try:
            answer = await request
        except (aiohttp.ClientError, TimeoutError) as error:
            self._note(repr(error))
            return None
        self.outcomes[str(answer.status)] += 1
        if answer.status != 200:
            self.failures.append(repr(answer))
        return answer

    def _note(self, failure: str) -> None:
        self.outcomes["no answer"] += 1
        self.failures.append(failure)


@pytest.mark.timeout(900)
async def test_a_rolling_restart_under_load_fails_no_request(system: System, session: aiohttp.ClientSession) -> None:
    async with local_services(system.instance) as services:
        make = Factory(api=Api(session, system.url), services=services)
        payers = [await make.customer(USD="10000.00") for _ in range(CLIENTS)]
        payee = await make.customer(USD="0.00")
    before = system.processes()
    load = Load(payers, payee)
    running = asyncio.create_task(load.run())

    done = await asyncio.to_thread(system.run, "restart", timeout_s=600)
    load.is_restarted = True
    await running

    after = system.processes()
    names = [row.name for row in SERVICES]
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == names
    assert all(before[name]["pid"] != after[name]["pid"] for name in names)
    assert {after[name]["health"] for name in names} == {"healthy"}
    print(f"{load.requests} requests, {dict(load.outcomes)}, {load.paid} paid; {done.stdout.splitlines()[-1]}")
    assert load.failures == [], load.outcomes
    assert load.requests >= REQUESTS
    assert (await payee.balances())[0] == f"{load.paid * 0.01:.2f}"
    assert system.run("ledger", "verify").returncode == 0
