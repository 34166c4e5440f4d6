"""A payment that cannot be made on its day, for a service that it needs stands still, expires and moves nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest

from payflow.run.local_rpc import local_services
from payflow.run.supervisor.status import read_status
from tests.support.api import Api, Factory, eventually, new_key
from tests.support.system import RELAXED, System, running_system

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system(**RELAXED, EXECUTE_LATE_S="2", PAYMENT_LEASE_S="1") as system:
        yield system


async def keep_still(system: System, name: str) -> None:
    """Stop a process again and again, for the supervisor finds out and replaces it."""
    while True:
        status = read_status(system.instance)
        pids = [one.pid for one in status.processes if one.name == name] if status is not None else []
        for pid in pids:
            if pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
        await asyncio.sleep(0.02)


async def test_a_payment_that_cannot_be_made_on_its_day_expires(system: System) -> None:
    async with aiohttp.ClientSession() as session, local_services(system.instance) as services:
        make = Factory(api=Api(session, system.url), services=services)
        debtor, creditor = await make.customer(), await make.customer()
        due = datetime.now(UTC) + timedelta(seconds=4)
        body, key = debtor.body(creditor.account, execute_at=due.isoformat()), new_key()
        ordered = await debtor.client.confirm(body, key=key)
        stopping = asyncio.create_task(keep_still(system, "risk"))

        async def ended() -> Any:
            payment = await debtor.payment(body["transaction_id"])
            return payment if payment["status"] != "PENDING" else None

        payment = await eventually(ended, seconds=60, pause_s=0.3)
        stopping.cancel()
        again = await debtor.client.confirm(body, key=key)

        assert ordered.status == 202
        assert (payment["status"], payment["error"]) == ("EXPIRED", "PAYMENT_EXPIRED")
        assert (again.status, again.error) == (422, "PAYMENT_EXPIRED")
        assert await debtor.balances() == ("1000.00", "0.00", "1000.00")
