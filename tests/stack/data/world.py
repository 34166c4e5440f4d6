"""Customers of an instance, and what must hold of it afterwards."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from payflow.run.local_rpc import LocalServices, local_services
from tests.support.api import Api, Client, Factory
from tests.support.load import Load
from tests.support.other_bank import OtherBank
from tests.support.system import System


@dataclass
class World:
    """An instance, a way to make customers, and the bank beside it."""

    system: System
    make: Factory
    services: LocalServices
    other_bank: OtherBank
    api: Api

    async def sign_in_operator(self, username: str) -> Client:
        """An operator of the demo data."""
        return await self.api.sign_in(username, self.system.operator_password(username))


@asynccontextmanager
async def world_of(system: System) -> AsyncIterator[World]:
    timeout = aiohttp.ClientTimeout(total=15)
    connector = aiohttp.TCPConnector(limit=0)
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        local_services(system.instance) as services,
    ):
        api = Api(session, system.url)
        make = Factory(api=api, services=services)
        yield World(system, make, services, OtherBank(Api(session, system.other_bank_url)), api)


def assert_verified(system: System, *further: str) -> None:
    """Every rule of `payflow verify` is kept, and no log tells of a bug."""
    done = system.run("verify", "--json", *further, timeout_s=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    findings = json.loads(done.stdout)
    assert findings
    assert all(finding["broken"] == 0 for finding in findings), findings
    bugs = system.logged_bugs()
    assert not bugs, "\n".join(bugs)


async def assert_books_are_as_told(load: Load) -> None:
    """Each payment that a customer was told of is there once, in the state told; none was forgotten or doubled."""
    for order in load.orders:
        assert order.final is not None
        found = await order.customer.payment(order.body["transaction_id"])
        assert (found["status"] == "SUCCESS") == order.is_paid, (found, order.final)
        assert order.is_paid or found["error"] == order.final.error, (found, order.final)
