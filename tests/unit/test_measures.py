"""Metrics: named as Prometheus wants them, documented, and with no more series than there are kinds of things."""

from __future__ import annotations

import gc
import importlib
import pkgutil
import re

import prometheus_client
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from tools.metrics_page import Metric, metrics

import payflow
from payflow.contracts.confirm import PaymentState
from payflow.platform.http.asgi import Message, Receive, Scope, Send, json_response, send_response
from payflow.platform.http.edge import EdgeLayer
from payflow.platform.http.errors import NotFound
from payflow.platform.http.requests import ROUTE
from payflow.platform.measures import LiveGauge
from payflow.services.confirm.measures import tell_steps
from tests.builders import NOON
from tests.builders_confirm import a_payment

# Labels whose values somebody outside chooses, or that grow with what is stored.
UNBOUNDED = re.compile(r"(^|_)(id|key|user|username|customer|account|name|path|url|address|ip|message|trace)s?$")


@pytest.mark.parametrize("metric", metrics(), ids=lambda metric: metric.name)
def test_a_metric_is_named_by_prometheus_conventions(metric: Metric) -> None:
    assert re.fullmatch(r"payflow_[a-z][a-z0-9_]*[a-z0-9]", metric.name)
    assert metric.meaning.endswith("."), metric.meaning
    assert metric.name.endswith("_total") is (metric.kind == "counter")
    if metric.kind == "histogram":
        assert metric.name.endswith(("_seconds", "_items"))
    assert not metric.name.endswith(("_count", "_sum", "_bucket", "_ms", "_milliseconds", "_minutes"))
    assert not [label for label in metric.labels if UNBOUNDED.search(label)]


def test_every_metric_of_the_code_is_documented_once() -> None:
    for module in pkgutil.walk_packages(payflow.__path__, prefix="payflow."):
        if ".services." in module.name or ".platform." in module.name:
            importlib.import_module(module.name)

    told = {family.name for family in REGISTRY.collect() if family.name.startswith("payflow_")}

    documented = [metric.name.removesuffix("_total") for metric in metrics()]
    assert set(documented) == told
    assert len(documented) == len(set(documented))


def test_a_live_gauge_sums_what_lives_and_forgets_what_is_gone() -> None:
    class Queue:
        def __init__(self, waiting: int) -> None:
            self.waiting = waiting

    registry = CollectorRegistry()
    gauge = LiveGauge("payflow_test_waiting", "Waiting.", ["link"], registry=registry)
    queues = [Queue(3), Queue(4), Queue(5)]
    for queue, link in zip(queues, ["a", "a", "b"], strict=True):
        gauge.watch(queue, lambda one: one.waiting, link)

    before = registry.get_sample_value("payflow_test_waiting", {"link": "a"})
    del queue, queues[0]
    gc.collect()

    assert before == 7
    assert registry.get_sample_value("payflow_test_waiting", {"link": "a"}) == 4
    assert registry.get_sample_value("payflow_test_waiting", {"link": "b"}) == 5


def test_a_live_gauge_refuses_labels_that_it_does_not_have() -> None:
    gauge = LiveGauge("payflow_test_refusing", "Waiting.", ["link"], registry=CollectorRegistry())

    with pytest.raises(ValueError, match="link"):
        gauge.watch(object(), lambda _: 1.0)


def requests_of(route: str, status: str) -> float:
    labels = {"method": "GET", "route": route, "status": status}
    return REGISTRY.get_sample_value("payflow_http_requests_total", labels) or 0.0


async def ask(app: EdgeLayer, path: str, method: str = "GET") -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(_: Message) -> None:
        return None

    await app({"type": "http", "method": method, "path": path, "headers": []}, receive, send)


async def _routes(scope: Scope, _: Receive, send: Send) -> None:
    if not scope["path"].startswith("/things/"):
        raise NotFound
    scope[ROUTE] = "/things/{thing:str}"
    await send_response(send, json_response(200, b"{}"))


async def test_requests_are_counted_by_route_and_never_by_path() -> None:
    layer = EdgeLayer(_routes, service="demo", public=True)
    found, lost = requests_of("/things/{thing}", "200"), requests_of("unmatched", "404")

    for number in range(50):
        await ask(layer, f"/things/{number}")
        await ask(layer, f"/nothing/{number}")

    assert requests_of("/things/{thing}", "200") - found == 50
    assert requests_of("unmatched", "404") - lost == 50
    assert b"/things/7" not in prometheus_client.generate_latest()
    assert b"/nothing/7" not in prometheus_client.generate_latest()


async def test_a_method_that_does_not_exist_makes_no_series_of_its_own() -> None:
    layer = EdgeLayer(_routes, service="demo", public=True)

    await ask(layer, "/things/1", method="FROBNICATE")

    assert b"FROBNICATE" not in prometheus_client.generate_latest()


async def test_questions_about_health_are_not_counted_as_requests() -> None:
    layer = EdgeLayer(_routes, service="demo", public=True)
    before = prometheus_client.generate_latest()

    await ask(layer, "/live")
    await ask(layer, "/rpc/demo/do")

    after = prometheus_client.generate_latest()
    assert [line for line in after.splitlines() if b"http_requests" in line] == [
        line for line in before.splitlines() if b"http_requests" in line
    ]


def entered(state: PaymentState) -> float:
    return REGISTRY.get_sample_value("payflow_payments_total", {"state": state.value}) or 0.0


def test_payments_are_counted_by_the_states_that_they_entered() -> None:
    stored, overtaken = a_payment(), a_payment()
    for payment in (stored, overtaken):
        payment.move(PaymentState.APPROVED, now=NOON)
        payment.end(PaymentState.COMPLETED, now=NOON)
    before = entered(PaymentState.APPROVED), entered(PaymentState.COMPLETED)

    tell_steps([stored, overtaken], stored={stored.payment_id})

    assert (entered(PaymentState.APPROVED), entered(PaymentState.COMPLETED)) == (before[0] + 1, before[1] + 1)
