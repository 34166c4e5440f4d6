"""A real OpenSearch, set up by the program that ships, takes the real lines of a running Payflow, finds them, and
refuses what no code of ours writes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from payflow.run.local_rpc import LocalServices, local_services
from payflow.run.registry import SERVICES
from payflow_dev.deploy.log_fields import fields
from payflow_dev.deploy.logs import STREAM
from tests.support.api import Api, Customer, Factory, eventually
from tests.support.nginx import Nginx, running_nginx
from tests.support.other_bank import NORDBANK
from tests.support.search_node import SearchNode, running_search_node
from tests.support.servers import ROOT
from tests.support.system import RELAXED, System, running_system

# The node and a whole Payflow are started for the first of these.
pytestmark = pytest.mark.timeout(600)

ELASTIC = ROOT / "deploy" / "elastic"
SAVED_OBJECTS = ROOT / "deploy" / "kibana" / "saved_objects.ndjson"


def set_up(node: SearchNode, folder: Path = ELASTIC) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", str(ELASTIC / "setup.py"), "elasticsearch", node.url, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def node() -> Iterator[SearchNode]:
    with running_search_node() as node:
        done = set_up(node)
        assert done.returncode == 0, done.stderr
        yield node


@pytest.fixture(scope="module")
def system() -> Iterator[System]:
    with running_system(**RELAXED) as system:
        yield system


@pytest.fixture(scope="module")
def edge(system: System) -> Iterator[Nginx]:
    servers = [url.removeprefix("http://") for url in system.gateway_urls]
    with running_nginx(servers) as nginx:
        yield nginx


@pytest.fixture(scope="module")
async def services(system: System) -> AsyncIterator[LocalServices]:
    async with local_services(system.instance) as services:
        yield services


@pytest.fixture(scope="module")
async def paid(system: System, edge: Nginx, services: LocalServices) -> AsyncIterator[dict[str, Any]]:
    """A payment that was made through the edge, as its customer sees it, with its trace; and one of each other kind."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as session:
        make = Factory(api=Api(session, edge.url), services=services)
        payer, payee = await make.customer(USD="900000.00"), await make.customer()
        await pay_otherwise(payer, payee)
        answer = await payer.pay(payee.account, "10.00")
        assert answer.json["status"] == "SUCCESS", answer
        payment = await payer.payment(answer.json["transaction_id"])
        trace_id = answer.headers["traceresponse"].split("-")[1]

        async def told() -> bool:
            lines = lines_of(system, "audit") + lines_of(system, "notification")
            return sum(payment["payment_id"] in json.dumps(line) for line in lines) >= 2

        await eventually(told, seconds=30)
        yield {**payment, "trace_id": trace_id}


async def pay_otherwise(payer: Customer, payee: Customer) -> None:
    """Refused, to another bank, with a one-time password."""
    await payer.pay(payee.account, "99999999.00")
    await payer.pay(NORDBANK, "5.00")
    await payer.pay(payee.account, "15000.00")


def lines_of(system: System, name: str) -> list[dict[str, Any]]:
    text = system.instance.log_file(name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def by(field: str, value: str) -> dict[str, Any]:
    return {"term": {field: value}}


@pytest.fixture(scope="module")
async def written(node: SearchNode, system: System, edge: Nginx, paid: dict[str, Any]) -> list[dict[str, Any]]:
    """Every line that this Payflow and its edge have written, put into the store; what it answered for each."""
    documents = [line for row in SERVICES for line in lines_of(system, row.name)] + edge.log()
    found: list[dict[str, Any]] = []
    for first in range(0, len(documents), 500):
        found += await asyncio.to_thread(node.write, STREAM, documents[first : first + 500])
    return found


def test_every_line_of_a_running_system_is_taken(written: list[dict[str, Any]]) -> None:
    assert len(written) > 50
    assert [answer for answer in written if answer["status"] != 201] == []


def test_a_payment_is_found_by_its_id_in_the_services_that_handled_it(
    node: SearchNode, written: list[dict[str, Any]], paid: dict[str, Any]
) -> None:
    (ended,) = node.find(STREAM, {"bool": {"must": [by("payflow.payment_id", paid["payment_id"]),
                                                     by("message.keyword", "payment.ended")]}})  # fmt: skip
    batches = node.find(STREAM, by("payflow.payment_ids", paid["payment_id"]))

    assert (ended["payflow.state"], ended["service.name"]) == ("COMPLETED", "confirm")
    assert ended["event.duration"] > 0
    assert {line["service.name"] for line in batches} >= {"account", "risk", "audit", "notification"}


def test_a_payment_is_found_by_its_trace_from_the_edge_on(
    node: SearchNode, written: list[dict[str, Any]], paid: dict[str, Any]
) -> None:
    found = node.find(STREAM, by("trace.id", paid["trace_id"]))

    assert {line["service.name"] for line in found} >= {"nginx", "gateway", "confirm"}
    (edge,) = [line for line in found if line["service.name"] == "nginx"]
    assert (edge["url.path"], edge["http.response.status_code"]) == ("/payment/confirm", 200)


def test_what_fields_hold_can_be_counted(node: SearchNode, written: list[dict[str, Any]]) -> None:
    asked = {
        "size": 0,
        "query": by("message.keyword", "payment.ended"),
        "aggs": {"states": {"terms": {"field": "payflow.state"}}, "took": {"max": {"field": "event.duration"}}},
    }

    _, answer = node.ask("POST", f"/{STREAM}/_search", asked)

    states = {bucket["key"]: bucket["doc_count"] for bucket in answer["aggregations"]["states"]["buckets"]}
    assert states["COMPLETED"] >= 1
    assert answer["aggregations"]["took"]["value"] > 1_000_000


@pytest.mark.parametrize("search", [line for line in SAVED_OBJECTS.read_text().splitlines() if '"search"' in line][:5])
def test_a_saved_search_is_a_question_that_the_store_can_answer(
    node: SearchNode, written: list[dict[str, Any]], search: str
) -> None:
    """Kibana's language has other words for the same question; `query_string` reads these of them alike."""
    saved = json.loads(search)["attributes"]
    text = json.loads(saved["kibanaSavedObjectMeta"]["searchSourceJSON"])["query"]["query"]
    query = text.replace(" : ", ":").replace(" >= ", ":>=").replace(" > ", ":>").replace(" or ", " OR ")

    found = node.find(STREAM, {"query_string": {"query": query.replace(" and ", " AND ")}})

    if saved["title"] in ("Payments as they end", "One trace"):
        assert found
        shown = set(saved["columns"])
        assert any(shown & line.keys() for line in found)


@pytest.mark.parametrize("field", ["pan", "payflow.pan", "card.number", "payflow.debtor_name", "error.detail"])
def test_a_line_with_a_field_that_no_code_of_ours_writes_is_refused(node: SearchNode, field: str) -> None:
    now = datetime.now(UTC).isoformat()
    line = {"@timestamp": now, "message": "payment.ended", "service.name": "confirm", field: "4111111111111111"}

    (answer,) = node.write(STREAM, [line])

    assert answer["status"] == 400
    assert answer["error"]["type"] == "strict_dynamic_mapping_exception"
    assert node.find(STREAM, {"query_string": {"query": "4111111111111111"}}) == []


def test_a_repeated_set_up_lets_the_stream_take_what_a_new_release_writes(node: SearchNode, tmp_path: Path) -> None:
    template = json.loads((ELASTIC / "template.json").read_text(encoding="utf-8"))
    template["template"]["mappings"]["properties"]["payflow.new"] = {"type": "keyword"}
    (tmp_path / "template.json").write_text(json.dumps(template), encoding="utf-8")
    line = {"@timestamp": datetime.now(UTC).isoformat(), "message": "new", "payflow.new": "a"}
    (refused,) = node.write(STREAM, [line])

    done = set_up(node, tmp_path)

    assert done.returncode == 0, done.stderr
    (taken,) = node.write(STREAM, [line])
    assert (refused["status"], taken["status"]) == (400, 201)
    # Another type: the stream goes on in a new index.
    template["template"]["mappings"]["properties"]["payflow.new"] = {"type": "long"}
    (tmp_path / "template.json").write_text(json.dumps(template), encoding="utf-8")
    assert set_up(node, tmp_path).returncode == 0
    (taken,) = node.write(STREAM, [{**line, "payflow.new": 1}])
    assert taken["_index"].endswith("-000002")


def test_the_store_has_a_type_for_every_field(node: SearchNode) -> None:
    _, mapping = node.ask("GET", f"/{STREAM}/_mapping/field/*")

    named = {name for index in mapping.values() for name in index["mappings"] if not name.startswith("_")}
    # Objects that are kept and not searched, and the parts of `payflow.messages`.
    assert set(fields()) - named == {"payflow.counts", "payflow.failures", "payflow.messages"}
