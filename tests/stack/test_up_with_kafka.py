"""`./payflow up --kafka`: payments whose events go through a real Kafka, that is killed, and that nobody misses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import psutil
import pytest

from payflow.contracts.notification import ListMessages, Notification
from payflow.kernel.errors import PayflowError
from payflow.run.local_rpc import LocalServices, local_services
from payflow_dev.kafka.jars import fetch
from payflow_dev.otlp.receiver import Receiver
from tests.support.api import Api, Client, Customer, Factory, eventually, new_key
from tests.support.receiver import receiving
from tests.support.system import RELAXED, System, kill, running_system
from tests.support.traces import pay_recorded, spans_of

pytestmark = pytest.mark.timeout(300)
PATIENCE_S = 60


@pytest.fixture(scope="module")
def collector() -> Iterator[Receiver]:
    """Where the instance sends its traces."""
    with Receiver() as receiver:
        yield receiver


@pytest.fixture(scope="module")
def system(collector: Receiver) -> Iterator[System]:
    """The instance. At the end its books and audit trail must be whole, and no log may tell of a bug."""
    fetch()
    several = {"PAYFLOW_KAFKA_PARTITIONS": "3"}
    with running_system("--kafka", **RELAXED, **several, PAYFLOW_OTLP_ENDPOINT=collector.url) as system:
        yield system
        for verified in (system.run("ledger", "verify"), system.run("audit", "verify")):
            assert verified.returncode == 0, verified.stdout + verified.stderr
        assert system.logged_bugs() == []


@pytest.fixture(scope="module")
async def services(system: System) -> AsyncIterator[LocalServices]:
    async with local_services(system.instance) as services:
        yield services


@pytest.fixture(scope="module")
async def api(system: System) -> AsyncIterator[Api]:
    # A connection kept from before a restart would be found closed in the middle of a request.
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Api(session, system.url)


@pytest.fixture(scope="module")
async def make(api: Api, services: LocalServices) -> Factory:
    return Factory(api=api, services=services)


@pytest.fixture(scope="module")
async def auditor(api: Api, system: System) -> Client:
    return await api.sign_in("auditor", system.operator_password("auditor"))


async def _pay(debtor: Customer, creditor: Customer) -> str:
    """Make a payment; its id."""
    body = debtor.body(creditor.account, "10.00")
    answer = await debtor.client.confirm(body, key=new_key())
    assert answer.json["status"] == "SUCCESS", answer
    return str((await debtor.payment(body["transaction_id"]))["payment_id"])


async def _recorded(auditor: Client, payment_id: str) -> list[str]:
    """The types of a payment's events in the audit trail, once there are any."""

    async def look() -> list[str]:
        page = await auditor.get(f"/audit?subject={payment_id}&limit=200")
        return [row["type"] for row in page.json["data"]]

    return list(await eventually(look, seconds=PATIENCE_S))


async def _told(services: LocalServices, customer: Customer, *, count: int) -> list[str]:
    """The kinds of messages to a customer, once there are so many."""

    async def look() -> list[str]:
        (found,) = await services.client(Notification).list_messages([ListMessages(customer_id=customer.customer_id)])
        assert not isinstance(found, PayflowError), found
        kinds = sorted(message.kind for message in found.messages)
        return kinds if len(kinds) >= count else []

    return list(await eventually(look, seconds=PATIENCE_S))


def _dependencies(system: System) -> dict[str, Any]:
    processes = system.processes()
    return {name: processes[name] for name in ("kafka", "postgres", "valkey")}


async def test_kafka_is_a_watched_child_with_a_small_heap(system: System) -> None:
    kafka = _dependencies(system)["kafka"]

    assert kafka["health"] == "healthy"
    assert kafka["url"] == f"kafka://127.0.0.1:{system.instance.port_base + 21}"
    assert kafka["pss_kb"] < 400_000


async def test_a_payments_events_come_to_audit_and_notification_through_kafka(
    system: System, make: Factory, auditor: Client, services: LocalServices
) -> None:
    debtor, creditor = await make.customer(USD="100.00"), await make.customer()

    payment_id = await _pay(debtor, creditor)
    recorded = await _recorded(auditor, payment_id)
    told = await _told(services, debtor, count=1)
    seen = system.run("events", "tail", "--payment", payment_id, "--json")

    assert recorded == ["payment.completed"]
    assert told == ["payment_completed"]
    assert [json.loads(line)["type"] for line in seen.stdout.splitlines()] == ["payment.completed"], seen.stderr
    assert system.run("verify").returncode == 0


async def test_a_webhook_hears_through_kafka_of_what_happens_after_its_registration_and_of_nothing_before(
    system: System, api: Api, make: Factory, auditor: Client
) -> None:
    operator = await api.sign_in("operator", system.operator_password("operator"))
    debtor, creditor = await make.customer(USD="100.00"), await make.customer()
    before = await _pay(debtor, creditor)
    await _recorded(auditor, before)

    async with receiving() as receiver:
        wanted = {"url": receiver.url(), "event_types": ["payment.completed"], "customer_id": debtor.customer_id}
        registered = await operator.post("/webhooks", wanted)
        after = await _pay(debtor, creditor)

        async def is_told() -> bool:
            return bool(receiver.received)

        await eventually(is_told, seconds=PATIENCE_S)
        await asyncio.sleep(1)
        told = [one.verify(registered.json["secret"])["data"]["payment_id"] for one in receiver.received]
        path = f"/webhooks/{registered.json['webhook_id']}"
        assert (await operator.api.send("DELETE", path, token=operator.token)).status == 204

    assert told == [after]


async def test_a_payments_trace_and_log_lines_go_through_kafka(
    system: System, make: Factory, collector: Receiver, services: LocalServices
) -> None:
    debtor, creditor = await make.customer(USD="100.00"), await make.customer()

    answer, trace_id = await pay_recorded(debtor, creditor.account)
    payment_id = (await debtor.payment(answer.json["transaction_id"]))["payment_id"]
    await _told(services, debtor, count=1)

    await spans_of(collector, trace_id, until={"gateway", "confirm", "account", "audit", "notification"})

    async def goes_through_kafka() -> bool:
        spans = collector.spans(trace_id)
        names = {span.name for span in spans if span.attributes.get("messaging.system") == "kafka"}
        return names >= {"event log publish", "event log process audit", "event log process notification"}

    await eventually(goes_through_kafka, seconds=PATIENCE_S)

    async def lines() -> str:
        done = await asyncio.to_thread(system.run, "logs", "--payment", payment_id)
        handled = {line.split("|")[0].strip() for line in done.stdout.splitlines() if "events.handled" in line}
        return done.stdout if handled >= {"audit", "notification"} else ""

    told = await eventually(lines, seconds=PATIENCE_S, pause_s=0.5)
    assert told.count('"message":"payment.ended"') == 1


async def test_kafka_killed_stops_no_payment_and_the_backlog_drains(
    system: System, make: Factory, auditor: Client, services: LocalServices
) -> None:
    debtor, creditor = await make.customer(USD="1000.00"), await make.customer()
    before = await _pay(debtor, creditor)
    await _recorded(auditor, before)
    kafka = _dependencies(system)["kafka"]

    kill(kafka["pid"])
    payments = []
    for _ in range(4):
        payments.append(await _pay(debtor, creditor))
        await asyncio.sleep(0.2)
    recorded = [await _recorded(auditor, payment_id) for payment_id in payments]

    again = _dependencies(system)["kafka"]
    assert recorded == [["payment.completed"]] * 4
    assert await _told(services, debtor, count=5) == ["payment_completed"] * 5
    assert again["pid"] != kafka["pid"]
    assert again["restarts"] == kafka["restarts"] + 1


async def test_an_instance_stops_with_its_kafka_and_goes_on_without_it(
    system: System, make: Factory, auditor: Client, services: LocalServices
) -> None:
    debtor, creditor = await make.customer(USD="100.00"), await make.customer()
    before = await _pay(debtor, creditor)
    await _recorded(auditor, before)
    pid = _dependencies(system)["kafka"]["pid"]

    down = system.run("down")
    ports = ["--port-base", str(system.instance.port_base), "--port", str(system.instance.port)]
    without = system.run("up", "-d", *ports, timeout_s=120)
    names = set(system.processes())
    after = await _pay(debtor, creditor)
    recorded = await _recorded(auditor, after)

    assert down.returncode == 0, down.stderr
    assert without.returncode == 0, without.stderr
    assert "kafka" not in names
    assert recorded == ["payment.completed"]
    assert await _told(services, debtor, count=2) == ["payment_completed"] * 2
    assert not psutil.pid_exists(pid)
