"""Every picture of the dashboards is drawn from something: a real Prometheus scrapes a Payflow in which payments are
made, and is asked each panel's query."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress

import aiohttp
import pytest

from payflow.run.local_rpc import LocalServices, local_services
from payflow.run.registry import SERVICES
from payflow_dev.deploy.prometheus import Watched
from payflow_dev.kafka.jars import fetch
from tests.support.api import Api, Customer, Factory, eventually, new_key
from tests.support.exporters import server_exporters
from tests.support.other_bank import NORDBANK
from tests.support.ports import free_ports
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.servers import ROOT
from tests.support.system import RELAXED, System, running_system

DASHBOARDS = ROOT / "deploy" / "grafana" / "dashboards"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
METRICS = ROOT / "docs" / "metrics.md"
# As Grafana puts it in: four scrapes.
RANGE = "4s"


def queries() -> list[tuple[str, str, str]]:
    """Dashboard, panel and query of every line."""
    found = []
    for path in sorted(DASHBOARDS.glob("*.json")):
        for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
            found += [(path.stem, panel["title"], target["expr"]) for target in panel["targets"]]
    return found


def as_asked(query: str) -> str:
    """A query with Grafana's variables filled in."""
    return query.replace("$__rate_interval", RANGE).replace("$service", ".+")


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    fetch()
    with running_system("--kafka", **RELAXED) as system:
        yield system


@pytest.fixture(scope="module")
def prometheus(system: System, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Scrapes every process of the instance by the names that it has in Compose, and the servers' exporters."""
    targets = {row.name: system.service_url(row.port_offset).removeprefix("http://") for row in SERVICES}
    logs = tmp_path_factory.mktemp("exporters")
    with (
        server_exporters(system, logs) as exporters,
        running_prometheus(targets, watched=Watched(exporters)) as prometheus,
    ):
        prometheus.wait_until(f'count(up{{job="payflow"}} == 1) == {len(SERVICES)}')
        yield prometheus


@pytest.fixture(scope="module")
async def services(system: System) -> AsyncIterator[LocalServices]:
    async with local_services(system.instance) as services:
        yield services


@pytest.fixture(scope="module")
async def traffic(system: System, services: LocalServices, prometheus: Prometheus) -> AsyncIterator[None]:
    """Payments of every kind, again and again while the queries are asked."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        make = Factory(api=Api(session, system.url), services=services)
        payers = [await make.customer(USD="900000.00", EUR="900000.00") for _ in range(2)]
        is_over = asyncio.Event()
        going_on = asyncio.create_task(pay_on(payers, is_over))
        await asyncio.sleep(8)
        yield
        is_over.set()
        await going_on


async def pay_on(payers: list[Customer], is_over: asyncio.Event) -> None:
    """Go on until told, also behind a connection that broke: panels without traffic would all be found empty."""
    while not is_over.is_set():
        with suppress(aiohttp.ClientConnectionError, TimeoutError):
            await pay_one_of_each_kind(*payers)
        await asyncio.sleep(0.2)


async def pay_one_of_each_kind(one: Customer, other: Customer) -> None:
    """On us, refused, to another bank, with a code, and in a file."""
    await one.pay(other.account, "10.00")
    await one.pay(other.account, "99999999.00")
    await one.pay(NORDBANK, "5.00", from_account=one.accounts["EUR"])
    await pay_with_code(other, one)
    line = json.dumps({**one.body(other.account, "1.00"), "customer_id": one.customer_id}).encode() + b"\n"
    headers = {"Idempotency-Key": new_key(), "Content-Type": "application/x-ndjson"}
    uploaded = await one.client.api.send("POST", "/payments/bulk", token=one.client.token, body=line, headers=headers)
    assert uploaded.status in (200, 202, 429, 503), uploaded


async def pay_with_code(payer: Customer, payee: Customer) -> None:
    """A payment that needs a one-time password."""
    transaction_id = f"otp-{new_key()}"
    asked = {"key": transaction_id, "transaction_id": transaction_id}
    answer = await payer.pay(payee.account, "10000.01", **asked)
    if answer.status == 200 and answer.json["status"] == "OTP_REQUIRED":
        await payer.pay(payee.account, "10000.01", **asked, otp=await payer.otp(transaction_id))


@pytest.mark.parametrize(("dashboard", "panel", "query"), queries(), ids=lambda text: text[:60])
async def test_every_panel_is_answered(
    prometheus: Prometheus, traffic: None, dashboard: str, panel: str, query: str
) -> None:
    asked = as_asked(query)

    async def answered() -> bool:
        series = await asyncio.to_thread(prometheus.query, asked)
        return any(one["value"][1] not in ("NaN", "+Inf") for one in series)

    await eventually(answered, seconds=60)


async def test_every_metric_that_is_drawn_or_alerts_is_one_of_ours(prometheus: Prometheus, traffic: None) -> None:
    """A misspelt name would otherwise hide behind `or vector(0)`."""
    # Some are there only with Kafka: the list of our own metrics, which is made from the code, has them too.
    documented = re.findall(r"^\| `(payflow_[a-z_]+)`", METRICS.read_text(encoding="utf-8"), re.MULTILINE)
    known = {re.sub(r"_total$", "", name) for name in [*prometheus.metadata(), *documented]}
    texts = [query for _, _, query in queries()] + [ALERTS.read_text(encoding="utf-8")]

    named = {name for text in texts for name in re.findall(r"\b(?:payflow|process)_[a-z_]+", text)}

    endings = re.compile(r"(_total|_bucket|_count|_sum)$")
    assert named
    assert {name for name in named if endings.sub("", name) not in known and name not in known} == set()


async def test_the_business_panels_tell_what_was_paid(prometheus: Prometheus, traffic: None) -> None:
    booked = 'sum(payflow_rpc_answers_total{service="account",operation=~"transfer|capture_hold",code="OK"})'
    before = prometheus.value(booked)

    async def grew() -> bool:
        return await asyncio.to_thread(prometheus.value, booked) > before

    await eventually(grew, seconds=20)
    assert prometheus.value("max(payflow_ledger_broken)") == 0


def test_no_alert_is_raised_while_all_is_well(prometheus: Prometheus) -> None:
    firing = [alert["labels"] for alert in prometheus.alerts() if alert["state"] == "firing"]

    # The lists that come along are of their day, and the machine is as fast as it is.
    of_their_own = ("SanctionsListStale", "SlowPaymentsBurn", "SlowPaymentsBurnSlowly")
    assert [labels for labels in firing if labels["alertname"] not in of_their_own] == []


def test_a_process_that_is_gone_is_noticed() -> None:
    with running_prometheus({"kyc": f"127.0.0.1:{free_ports(1)[0]}"}) as prometheus:
        prometheus.wait_until('up{process="kyc"} == 0')
        deadline = time.monotonic() + 40
        while not prometheus.alerts():
            assert time.monotonic() < deadline
            time.sleep(0.2)
        (alert,) = prometheus.alerts()

    assert (alert["labels"]["alertname"], alert["labels"]["process"]) == ("ProcessDown", "kyc")
