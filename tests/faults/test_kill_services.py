"""Every process is killed during payments, one after another. Afterwards the books are what the customers were told."""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

import aiohttp
import pytest

from payflow.contracts.account import Account, EntryLine, ListEntries, VerifyLedger
from payflow.contracts.audit import Audit, SearchAudit, VerifyAudit
from payflow.contracts.confirm import Confirm, ListPayments, PaymentState, PaymentView
from payflow.kernel.errors import PayflowError
from payflow.run.local_rpc import LocalServices, local_services
from payflow.run.registry import SERVICES
from payflow.run.supervisor.status import ProcessStatus, read_status
from tests.support.api import Api, Customer, Factory, eventually
from tests.support.load import Load
from tests.support.other_bank import OtherBank
from tests.support.system import RELAXED, System, kill, running_system

CUSTOMERS: Final = 64
VICTIMS: Final = [*(row.name for row in SERVICES), "valkey", "postgres"]
WORKING: Final = (PaymentState.RECEIVED, PaymentState.APPROVED, PaymentState.HELD, PaymentState.SUBMITTED)
_BACK_S: Final = 15.0
_SETTLED_S: Final = 30.0

pytestmark = pytest.mark.timeout(240)


@dataclass
class World:
    """The instance, the customers' load, and the ways to look behind it."""

    system: System
    services: LocalServices
    load: Load
    other_bank: OtherBank
    killed: dict[str, int]


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    settings = {"OTP_ISSUE_PER_CUSTOMER": "10000/15m", "OTP_ISSUE_PER_PAYMENT": "100/15m"}
    with running_system(**RELAXED, **settings) as system:
        yield system


@pytest.fixture(scope="module")
async def world(system: System) -> AsyncIterator[World]:
    timeout = aiohttp.ClientTimeout(total=15)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session,
        local_services(system.instance) as services,
    ):
        api = Api(session, system.url)
        make = Factory(api=api, services=services)
        customers: list[Customer] = []
        while len(customers) < CUSTOMERS:
            # Some at a time: making them is no part of the load.
            customers += await asyncio.gather(*(make.customer(USD="1000000.00") for _ in range(16)))
        load = Load(customers, pause_s=0.6, seed=7)
        load.start()
        other_bank = OtherBank(Api(session, system.other_bank_url))
        yield World(system=system, services=services, load=load, other_bank=other_bank, killed={})
        await load.stop()


def process_of(system: System, name: str) -> ProcessStatus | None:
    status = read_status(system.instance)
    return None if status is None else next((one for one in status.processes if one.name == name), None)


async def back(system: System, name: str, *, old_pid: int) -> bool:
    """Whether another process has taken the killed one's place, and is healthy."""
    process = process_of(system, name)
    return process is not None and process.state == "healthy" and process.pid not in (None, old_pid)


async def payments_go_on(load: Load) -> None:
    """Wait for ten more payments that succeed."""
    before = load.paid

    async def look() -> bool:
        return load.paid >= before + 10

    await eventually(look, seconds=_BACK_S)


@pytest.mark.parametrize("name", VICTIMS)
async def test_a_killed_process_is_replaced_and_payments_go_on(world: World, name: str) -> None:
    await payments_go_on(world.load)
    told = await asyncio.to_thread(world.system.processes)
    pid = int(told[name]["pid"])

    kill(pid)

    world.killed[name] = pid
    await eventually(lambda: back(world.system, name, old_pid=pid), seconds=_BACK_S)
    process = process_of(world.system, name)
    assert process is not None
    assert process.restarts == told[name]["restarts"] + 1
    assert process.pid is not None
    os.kill(process.pid, 0)
    await payments_go_on(world.load)


@pytest.fixture(scope="module")
async def settled(world: World) -> World:
    """The same world after the last fault: every customer has a final answer, and nothing is unfinished any more."""
    began_at = time.monotonic()
    async with asyncio.timeout(_SETTLED_S):
        await world.load.stop()

    async def is_settled() -> bool:
        queries = [ListPayments(customer_id=None, state=state, limit=1) for state in WORKING]
        pages = await world.services.client(Confirm).list_payments(queries)
        return not any(isinstance(page, PayflowError) or page.payments for page in pages)

    await eventually(is_settled, seconds=_SETTLED_S - (time.monotonic() - began_at), pause_s=0.3)
    return world


async def payments_of(world: World, customer_id: str) -> list[PaymentView]:
    """Every payment of a customer, as confirm has it."""
    found: list[PaymentView] = []
    query = ListPayments(customer_id=customer_id, limit=200)
    while True:
        (page,) = await world.services.client(Confirm).list_payments([query])
        assert not isinstance(page, PayflowError), page
        found += page.payments
        if page.next_cursor is None:
            return found
        query = ListPayments(customer_id=customer_id, limit=200, cursor=page.next_cursor)


async def entries_of(world: World, number: str) -> list[EntryLine]:
    """Every statement line of an account."""
    found: list[EntryLine] = []
    query = ListEntries(number=number, limit=200)
    while True:
        (page,) = await world.services.client(Account).list_entries([query])
        assert not isinstance(page, PayflowError), page
        found += page.entries
        if page.next_cursor is None:
            return found
        query = ListEntries(number=number, limit=200, cursor=page.next_cursor)


async def everything(world: World) -> tuple[dict[tuple[str, str], PaymentView], Counter[UUID], dict[UUID, int]]:
    """All payments by customer and transaction; how often each left an account; and how much."""
    customers = {order.customer.customer_id: order.customer for order in world.load.orders}
    payments: dict[tuple[str, str], PaymentView] = {}
    debits: Counter[UUID] = Counter()
    amounts: dict[UUID, int] = {}
    for customer in customers.values():
        for payment in await payments_of(world, customer.customer_id):
            payments[payment.customer_id, payment.transaction_id] = payment
        for line in await entries_of(world, customer.account):
            if line.payment_id is not None and line.amount_minor < 0:
                debits[line.payment_id] += 1
                amounts[line.payment_id] = -line.amount_minor
    return payments, debits, amounts


async def test_every_process_was_killed_once_and_payments_of_every_kind_were_under_way(settled: World) -> None:
    orders = settled.load.orders
    kinds = Counter(str(order.body["to_account"])[:2] for order in orders)

    assert set(settled.killed) == set(VICTIMS)
    assert len(set(settled.killed.values())) == len(VICTIMS)
    assert settled.load.paid > 200
    assert kinds["DE"] > 10
    assert sum("otp" in order.body and order.is_paid for order in orders) > 5
    assert sum(order.final is not None and order.final.status == 422 for order in orders) > 5


async def test_no_fault_was_told_as_anything_but_try_again(settled: World) -> None:
    assert settled.load.bugs == []


async def test_what_was_told_paid_is_in_the_ledger_exactly_once_and_what_was_refused_is_not(settled: World) -> None:
    payments, debits, amounts = await everything(settled)

    for order in settled.load.orders:
        assert order.final is not None
        payment = payments[order.customer.customer_id, order.body["transaction_id"]]
        if order.is_paid:
            assert payment.state is PaymentState.COMPLETED
            assert debits[payment.payment_id] == 1, payment
            assert amounts[payment.payment_id] == payment.amount_minor
        else:
            assert payment.state is PaymentState.REJECTED, (payment, order.final)
            assert debits[payment.payment_id] == 0, payment
    completed = {payment.payment_id for payment in payments.values() if payment.state is PaymentState.COMPLETED}
    assert set(debits) == completed


async def test_a_final_answer_is_told_again_byte_for_byte(settled: World) -> None:
    sample = settled.load.orders[:: max(1, len(settled.load.orders) // 50)]

    for order in sample:
        again = await order.customer.client.confirm(order.body, key=order.key)
        assert order.final is not None
        assert (again.status, again.body) == (order.final.status, order.final.body)


async def test_no_payment_is_left_unfinished_and_no_money_is_left_held(settled: World) -> None:
    (ledger,) = await settled.services.client(Account).verify_ledger([VerifyLedger()])

    assert not isinstance(ledger, PayflowError)
    assert ledger.broken == []
    assert ledger.open_holds == 0


async def test_the_other_bank_was_paid_exactly_what_was_told_paid(settled: World) -> None:
    payments, _, _ = await everything(settled)
    abroad = [order for order in settled.load.orders if str(order.body["to_account"]).startswith("DE")]

    for order in abroad:
        payment = payments[order.customer.customer_id, order.body["transaction_id"]]
        row = await settled.other_bank.received(payment.payment_id.hex)
        if order.is_paid:
            assert row is not None
            assert (row["status"], row["amount_minor"]) == ("ACCEPTED", payment.amount_minor)
        else:
            assert row is None or row["status"] != "ACCEPTED"


async def test_the_audit_trail_is_whole_and_has_every_end_once(settled: World) -> None:
    payments, _, _ = await everything(settled)
    expected = {str(payment.payment_id) for payment in payments.values() if payment.state is PaymentState.COMPLETED}
    found: dict[str, Any] = {}

    async def has_all() -> bool:
        found["ends"] = await ends_in_audit(settled)
        return set(found["ends"]) >= expected

    await eventually(has_all, seconds=15, pause_s=0.5)

    assert set(found["ends"]) == expected
    assert set(found["ends"].values()) == {1}
    (verified,) = await settled.services.client(Audit).verify([VerifyAudit()])
    assert not isinstance(verified, PayflowError)
    assert verified.problems == []


async def ends_in_audit(world: World) -> Counter[str]:
    """How often the audit trail tells that each payment was completed."""
    ends: Counter[str] = Counter()
    cursor: int | None = 0
    while cursor is not None:
        query = SearchAudit(type="payment.completed", cursor=cursor, limit=200, oldest_first=True)
        (page,) = await world.services.client(Audit).search([query])
        assert not isinstance(page, PayflowError), page
        ends.update(row.subject for row in page.rows)
        cursor = page.next_cursor
    return ends


async def test_no_process_met_an_error_that_it_had_not_expected(settled: World) -> None:
    bugs = settled.system.logged_bugs()
    assert not bugs, "\n".join(bugs)
