"""Confirm is killed in the middle of a bulk order, again and again: every line is paid once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import aiohttp
import pytest

from payflow.contracts.account import Account, EntryLine, ListEntries, VerifyLedger
from payflow.kernel.errors import PayflowError
from payflow.run.local_rpc import LocalServices, local_services
from tests.support.api import Api, Factory, new_key
from tests.support.files import ended, lines_of, results, upload
from tests.support.system import RELAXED, System, kill, running_system

LINES: Final = 4000
KILLS: Final = 3

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system(**RELAXED, BULK_LEASE_S="3", PAYMENT_LEASE_S="3") as system:
        yield system


@pytest.fixture(scope="module")
async def services(system: System) -> AsyncIterator[LocalServices]:
    async with local_services(system.instance) as services:
        yield services


@pytest.fixture(scope="module")
async def make(system: System, services: LocalServices) -> AsyncIterator[Factory]:
    timeout = aiohttp.ClientTimeout(total=15)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Factory(api=Api(session, system.url), services=services)


async def debits(services: LocalServices, number: str) -> Counter[Any]:
    """How often each payment left an account."""
    found: Counter[Any] = Counter()
    query = ListEntries(number=number, limit=200)
    while True:
        (page,) = await services.client(Account).list_entries([query])
        assert not isinstance(page, PayflowError), page
        lines: list[EntryLine] = page.entries
        found.update(str(line.payment_id) for line in lines if line.payment_id is not None)
        if page.next_cursor is None:
            return found
        query = ListEntries(number=number, limit=200, cursor=page.next_cursor)


async def test_a_bulk_order_survives_its_process_and_pays_each_line_once(
    system: System, services: LocalServices, make: Factory
) -> None:
    debtor, creditor = await make.customer(USD="1000.00"), await make.customer(USD="0.00")
    bodies = [debtor.body(creditor.account, "0.01") for _ in range(LINES)]
    accepted = await upload(debtor, lines_of(bodies), key=new_key())
    bulk_id = accepted.json["bulk_id"]
    made = []

    for _ in range(KILLS):
        await asyncio.sleep(0.4)
        answer = await debtor.client.get(f"/payments/bulk/{bulk_id}")
        made.append(answer.json.get("counts", {}).get("SUCCESS", 0))
        processes = await asyncio.to_thread(system.processes)
        kill(int(processes["confirm"]["pid"]))
        await asyncio.sleep(1.5)
    done = await ended(debtor, bulk_id, seconds=90)
    items = await results(debtor, bulk_id)

    assert made[0] < LINES, "the order was done before anything was killed"
    assert (done["status"], done["counts"]) == ("COMPLETED", {"SUCCESS": LINES})
    assert {item["payment"]["transaction_id"] for item in items} == {body["transaction_id"] for body in bodies}
    paid = await debits(services, debtor.account)
    assert paid == Counter(item["payment"]["payment_id"] for item in items)
    assert await debtor.balances() == ("960.00", "0.00", "960.00")
    (ledger,) = await services.client(Account).verify_ledger([VerifyLedger()])
    assert not isinstance(ledger, PayflowError)
    assert (ledger.broken, ledger.open_holds) == ([], 0)


async def test_afterwards_every_rule_holds_and_nothing_is_stuck(system: System) -> None:
    verified = await asyncio.to_thread(system.run, "verify", timeout_s=120)
    stuck = await asyncio.to_thread(system.run, "stuck")

    assert verified.returncode == 0, verified.stdout + verified.stderr
    assert stuck.returncode == 0, stuck.stdout
    assert system.logged_bugs() == []
