"""What a payment leaves behind for whoever watches: one trace over all services, metrics, and log lines."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families
from tools.metrics_page import metrics

from payflow.run.registry import SERVICES
from payflow_dev.deploy.log_fields import service_fields
from payflow_dev.otlp.received import SeenSpan
from payflow_dev.otlp.receiver import Receiver
from tests.support.api import Api, Client, Factory, new_key
from tests.support.other_bank import NORDBANK
from tests.support.system import System
from tests.support.traces import pay_recorded, spans_of, trace_of

LISTED = "Rafael Caro Quintero"
Operators = dict[str, Client]


# --- traces -----------------------------------------------------------------------------------------------------


async def test_one_trace_shows_a_payment_through_all_services(make: Factory, collector: Receiver) -> None:
    payer, payee = await make.customer(), await make.customer()

    answer, trace_id = await pay_recorded(payer, payee.account)

    wanted = {"gateway", "confirm", "risk", "ofac", "kyc", "account", "audit", "notification"}
    spans = await spans_of(collector, trace_id, until=wanted)
    by_id = {span.span_id: span for span in spans}
    (root,) = [span for span in spans if not span.parent_id]
    assert (root.service, root.name, root.kind) == ("gateway", "POST /payment/confirm", "SERVER")
    assert root.attributes["payflow.state"] == "COMPLETED"
    assert root.span_id == answer.headers["traceresponse"].split("-")[2]
    # Every other span is below one that is there, of the service that called.
    callers = {
        (by_id[span.parent_id].service, span.service)
        for span in spans
        if span.parent_id and by_id[span.parent_id].service != span.service
    }
    assert callers == {
        ("gateway", "confirm"),
        ("confirm", "account"),
        ("confirm", "risk"),
        ("risk", "ofac"),
        ("risk", "kyc"),
        ("gateway", "audit"),
        ("gateway", "notification"),
    }


# Such long runs of digits contain any short amount now and then.
_IDS_AND_INSTANTS = re.compile(
    r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|(?<![0-9a-zA-Z])[0-9a-f]{16,}(?![0-9a-zA-Z])"
)


async def test_each_step_of_a_trace_tells_what_was_decided_and_nothing_of_a_person(
    make: Factory, collector: Receiver
) -> None:
    payer, payee = await make.customer(name="Erika Musterfrau"), await make.customer(name="Grace Hopper")

    answer, trace_id = await pay_recorded(payer, payee.account, "12.34")

    spans = await spans_of(collector, trace_id, until={"confirm", "risk", "ofac", "kyc", "account", "audit"})
    told = {span.name: span.attributes for span in spans if span.kind == "SERVER"}
    assert told["risk/assess"]["payflow.risk.level"] == "LOW"
    assert told["risk/assess"]["payflow.risk.rules_hit"] == []
    assert told["ofac/screen"]["payflow.ofac.outcome"] == "CLEAR"
    assert told["kyc/check"]["payflow.kyc.state"] == "VERIFIED"
    assert told["account/resolve"]["payflow.account.is_on_us"] is True
    assert told["account/transfer"]["payflow.account.entry_id"]
    assert told["confirm/confirm"]["payflow.confirm.state"] == "COMPLETED"
    payment = await payer.payment(answer.json["transaction_id"])
    assert told["confirm/confirm"]["payflow.payment_id"] == payment["payment_id"]
    everything = repr(spans)
    for secret in ("Musterfrau", "Hopper", payer.account, payee.account, payer.client.token):
        assert secret not in everything, secret
    texts = _IDS_AND_INSTANTS.sub("", everything)
    for amount in ("12.34", "1234"):
        assert amount not in texts, amount


async def test_the_trace_of_an_inter_bank_payment_goes_on_to_the_partner_bank(
    make: Factory, collector: Receiver
) -> None:
    payer = await make.customer()

    _, trace_id = await pay_recorded(payer, NORDBANK)

    spans = await spans_of(collector, trace_id, until={"partner_bank", "audit", "notification"})
    messages = [span for span in spans if span.name == "bank pacs.008"]
    assert {(span.service, span.attributes["payflow.bank.agent"]) for span in messages} == {
        ("partner_bank", "NORDDEFFXXX")
    }
    assert all(span.attributes["payflow.bank.outcome"] for span in messages)


async def test_payments_of_the_same_moment_are_linked_through_their_batch(make: Factory, collector: Receiver) -> None:
    payer, payee = await make.customer(), await make.customer()

    def linked() -> list[SeenSpan]:
        return [span for span in collector.spans() if span.attributes.get("payflow.joined") and span.links]

    for _ in range(10):
        answers = await asyncio.gather(*(payer.pay(payee.account, "0.10") for _ in range(12)))
        ours = {trace_id for trace_id, is_recorded in map(trace_of, answers) if is_recorded}
        await asyncio.sleep(2.2)
        joined = [span for span in linked() if span.trace_id in ours and span.name == "confirm/confirm"]
        if joined:
            break

    assert joined, "no two sampled payments shared a call"
    for span in joined:
        ((trace_id, span_id),) = span.links
        (batch,) = [one for one in collector.spans(trace_id) if one.span_id == span_id]
        assert (batch.name, batch.attributes["payflow.items"] > 1) == (span.name, True)


async def test_a_review_is_recorded_though_its_payment_was_not_sampled(make: Factory, collector: Receiver) -> None:
    payer, payee = await make.customer(name=LISTED, country="MX"), await make.customer()
    is_enough = asyncio.Event()

    async def ask_and_ask() -> None:
        # So much that the samplers of both gateways have nothing left for the payment.
        while not is_enough.is_set():
            await payer.client.api.send("GET", "/nothing")

    crowd = [asyncio.create_task(ask_and_ask()) for _ in range(16)]
    trace_id, is_recorded = "", True
    for _ in range(20):
        await asyncio.sleep(0.1)
        answer = await payer.pay(payee.account, "0.10")
        assert (answer.status, answer.json["status"]) == (202, "PENDING"), answer
        trace_id, is_recorded = trace_of(answer)
        if not is_recorded:
            break
    is_enough.set()
    await asyncio.gather(*crowd)

    assert not is_recorded
    spans = await spans_of(collector, trace_id, until={"gateway", "confirm", "audit", "notification"})
    told = [span.attributes for span in spans if span.name == "confirm/confirm" and span.service == "confirm"]
    assert "UNDER_REVIEW" in {attributes.get("payflow.confirm.state") for attributes in told}
    (root,) = [span for span in spans if not span.parent_id]
    assert (root.name, root.attributes["payflow.kept_because"]) == ("POST /payment/confirm", "review")


# --- metrics ----------------------------------------------------------------------------------------------------


async def series_of(api: Api, system: System) -> dict[str, float]:
    """Every series of ours of every process, with its value."""
    found: dict[str, float] = {}
    for row in SERVICES:
        answer = await api.at(system.service_url(row.port_offset)).send("GET", "/metrics")
        for family in text_string_to_metric_families(answer.body.decode()):
            for sample in family.samples:
                if sample.name.startswith("payflow_"):
                    found[f"{row.name} {sample.name} {sorted(sample.labels.items())}"] = sample.value
    return found


async def test_fifty_more_payments_make_no_further_series(make: Factory, api: Api, system: System) -> None:
    people = [await make.customer(USD="5000000.00") for _ in range(6)]

    async def pay(number: int) -> None:
        payer, payee = people[number % 5], people[(number + 1) % 6]
        body, key = payer.body(payee.account, "15000.00" if number % 5 == 4 else "1.00"), new_key()
        answer = await payer.client.confirm(body, key=key)
        if answer.json["status"] == "OTP_REQUIRED":
            code = await payer.otp(body["transaction_id"])
            await payer.client.confirm(body | {"otp": code}, key=key)
        await payer.payment(body["transaction_id"])
        await payer.balances()

    for number in range(5):
        await pay(number)
    await asyncio.gather(*(pay(number) for number in range(50)))
    await asyncio.sleep(1.5)
    before = await series_of(api, system)
    await asyncio.gather(*(pay(number) for number in range(50)))
    await asyncio.sleep(1.5)
    after = await series_of(api, system)

    assert sorted(after.keys() - before.keys()) == []
    received = "confirm payflow_payments_total [('state', 'RECEIVED')]"
    assert after[received] - before[received] == 50


async def test_every_metric_that_a_process_tells_is_documented(api: Api, system: System) -> None:
    documented = {metric.name for metric in metrics()}

    for row in SERVICES:
        answer = await api.at(system.service_url(row.port_offset)).send("GET", "/metrics")
        for family in text_string_to_metric_families(answer.body.decode()):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            assert not name.startswith("payflow_") or name in documented, (row.name, name)


async def test_an_exemplar_leads_from_a_histogram_to_a_trace(
    make: Factory, api: Api, system: System, collector: Receiver
) -> None:
    payer, payee = await make.customer(), await make.customer()
    _, trace_id = await pay_recorded(payer, payee.account)
    await spans_of(collector, trace_id, until={"confirm"})

    confirm = api.at(system.service_url(3))
    answer = await confirm.send(
        "GET", "/metrics", headers={"Accept": "application/openmetrics-text;version=1.0.0,*/*;q=0.1"}
    )

    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    told = set(re.findall(r'payflow_rpc_seconds_bucket\{.*# \{trace_id="([0-9a-f]{32})"\}', answer.body.decode()))
    assert trace_id in told or told & {span.trace_id for span in collector.spans()}


async def test_the_same_figures_are_sent_by_otlp(make: Factory, collector: Receiver) -> None:
    payer, payee = await make.customer(EUR="100.00"), await make.customer(EUR="1.00")

    def volume() -> float:
        points = collector.points("payflow_payment_volume_minor_units_total")
        return sum(
            point.value for point in points if point.labels == {"currency": "EUR"} and point.service == "confirm"
        )

    await asyncio.sleep(1.2)
    before = volume()
    await payer.pay(payee.account, "12.34")

    await asyncio.to_thread(collector.wait_until, lambda: volume() >= before + 1234, seconds=10)
    services = {point.service for point in collector.points("payflow_build_info")}
    assert {"gateway", "confirm", "risk", "ofac", "kyc", "account", "otp", "audit"} <= services


# --- logs -------------------------------------------------------------------------------------------------------


def log_texts(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.glob("*.log*")):
        if path.stem not in ("postgres", "valkey", "migrate"):
            yield path.name, path.read_text(encoding="utf-8", errors="replace")


async def test_no_log_tells_a_name_an_account_number_a_token_or_a_code(make: Factory, system: System) -> None:
    payer = await make.customer(name="Erika Musterfrau", USD="50000.00")
    payee = await make.customer(name="Grace Brewster")
    listed = await make.customer(name=LISTED, country="MX")
    body, key = payer.body(payee.account, "15000.00", remittance_information="Rent of the flat"), new_key()
    await payer.client.confirm(body, key=key)
    code = await payer.otp(body["transaction_id"])
    wrong = "000000" if code != "000000" else "111111"
    await payer.client.confirm(body | {"otp": wrong}, key=key)
    done = await payer.client.confirm(body | {"otp": code}, key=key)
    assert done.json["status"] == "SUCCESS", done
    bank = await payer.pay(NORDBANK, "10.00", creditor={"name": "Heinrich Nordmann"})
    review = await listed.pay(payee.account, "10.00")
    assert (bank.status, review.status) in ((200, 202), (202, 202))
    await payer.client.api.send("POST", "/auth/login", json_body={"username": payer.username, "password": "wrong pass"})
    await asyncio.sleep(1.5)

    secrets = ["Musterfrau", "Brewster", "Caro Quintero", "CARO QUINTERO", "Nordmann", "Rent of the flat", "wrong pass"]
    secrets += [payer.account, payee.account, listed.account, NORDBANK, payer.client.token, payer.client.refresh_token]
    secrets += [f"{payer.username}@example.org"]
    for name, text in log_texts(system.instance.logs_dir):
        for secret in secrets:
            assert secret not in text, (name, secret)
        assert not re.search(rf"(?<![0-9a-f.-]){code}(?![0-9a-f.-])", text), (name, "the one-time password")


def test_every_line_of_a_service_is_json_with_ecs_names(system: System) -> None:
    known = service_fields()
    for row in SERVICES:
        lines = system.instance.log_file(row.name).read_text(encoding="utf-8").splitlines()
        assert lines
        for line in lines:
            told = json.loads(line)
            assert told.keys() >= {"@timestamp", "log.level", "message", "ecs.version"}, line
            # The store of logs refuses others.
            assert told.keys() <= known, line
            assert (told["service.name"], told["service.node.name"]) == (row.service, row.name)


async def test_one_payments_lines_are_found_in_all_services_by_any_of_its_ids(make: Factory, system: System) -> None:
    payer, payee = await make.customer(), await make.customer()
    answer = await payer.pay(payee.account)
    payment = await payer.payment(answer.json["transaction_id"])
    other = await payer.pay(payee.account)
    await asyncio.sleep(1.0)

    for id in (payment["payment_id"], payment["transaction_id"], trace_of(answer)[0]):
        done = await asyncio.to_thread(system.run, "logs", "--payment", id)
        processes = {line.split("|")[0].strip() for line in done.stdout.splitlines()}
        assert processes - {"gateway-1", "gateway-2"} >= {
            "confirm", "account", "risk", "ofac", "kyc", "audit", "notification"
        }, done.stdout  # fmt: skip
        assert processes & {"gateway-1", "gateway-2"}
        assert done.stdout.count('"message":"payment.ended"') == 1
        assert other.json["transaction_id"] not in done.stdout
