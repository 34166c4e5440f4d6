"""With what watches it: a payment's trace, its log lines and its metrics are found, and an alert comes and goes.

Kibana and Grafana are not started: nothing could stand for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import quote
from uuid import uuid4

import yaml
from rig import (
    HTTP,
    HTTPS,
    ROOT,
    SETTINGS,
    ask,
    compose,
    containers,
    docker,
    eventually,
    inspect,
    is_ours,
    lines_of,
    memory_is_enough,
    pay,
    services,
    sign_in,
    start,
)

PROMETHEUS, JAEGER, STORE = "http://localhost:9090", "http://localhost:16686", "http://localhost:9200"
ALERTMANAGER = "http://localhost:9093"
ABSENT: Final = frozenset({"grafana", "kibana", "kibana-setup"})
SERVICES: Final = frozenset({"gateway", "confirm", "risk", "ofac", "kyc", "account", "audit", "notification"})
# The payment that all checks look for: its ids, and the trace that the edge began.
PAID: Final[dict[str, str]] = {}


def everything_that_can_be_had_here_starts_and_becomes_healthy() -> None:
    SETTINGS["COMPOSE_PROFILES"] = "core,observability"
    SETTINGS["DOCKER_CONTAINERS_DIR"] = docker("info", "--format", "{{.DockerRootDir}}").strip() + "/containers"
    wanted = {name for name, one in services("core").items() if "core" in one["profiles"]}
    wanted |= services("observability").keys() - ABSENT
    start(*sorted(wanted))
    states = {name: inspect(name)["State"] for name in containers()}
    done = {name for name, state in states.items() if state["Status"] == "exited" and state["ExitCode"] == 0}
    assert done == {"secrets", "migrate", "demo-data", "elasticsearch-setup"}, done
    down = wanted - done - {name for name, state in states.items() if state["Status"] == "running"}
    assert not down, {name: compose("logs", "--tail", "3", name) for name in down}


def a_payment_through_the_edge_is_one_trace_over_all_services() -> None:
    token = sign_in()

    def arrived() -> bool:
        status, answer, headers = pay_with_headers(token)
        assert (status, answer["status"]) == (200, "SUCCESS"), answer
        _, trace_id, _, flags = headers["traceresponse"].split("-")
        if flags != "01":
            return False
        payment = ask(f"{HTTPS}/payments/{answer['transaction_id']}", token=token)[1]
        PAID.update(trace_id=trace_id, payment_id=payment["payment_id"], transaction_id=answer["transaction_id"])
        return True

    eventually(arrived, "a payment was sampled")
    eventually(lambda: services_in_trace() >= SERVICES, f"all of {sorted(SERVICES)} in the trace {PAID['trace_id']}")
    print(f"      trace {PAID['trace_id']}: {', '.join(sorted(services_in_trace()))}")


def services_in_trace() -> set[str]:
    """Whose spans the store of traces has of the payment."""
    status, answer = ask(f"{JAEGER}/api/traces/{PAID['trace_id']}")
    if status != 200:
        return set()
    (trace,) = answer["data"]
    return {trace["processes"][span["processID"]]["serviceName"] for span in trace["spans"]}


def the_edge_answers_with_and_without_tls() -> None:
    for url in (HTTP, HTTPS):
        status, answer = ask(f"{url}/health")
        assert (status, answer["status"]) == (200, "healthy"), answer


def its_log_lines_are_found_by_payment_and_by_trace() -> None:
    by_payment = f"payflow.payment_id:{quote(PAID['payment_id'])} AND message:payment.ended"
    eventually(lambda: len(found(by_payment)) == 1, "the payment's line in the store")
    (ended,) = found(by_payment)
    assert (ended["payflow.state"], ended["container.name"]) == ("COMPLETED", "confirm-service"), ended
    assert ended["log.iostream"] == "stdout"
    in_trace = f"trace.id:{PAID['trace_id']}"
    eventually(lambda: {line["service.name"] for line in found(in_trace)} >= {"nginx", "gateway", "confirm"}, "lines")
    (edge,) = [line for line in found(in_trace) if line["service.name"] == "nginx"]
    assert (edge["url.path"], edge["url.scheme"], edge["tls.version"]) == ("/payment/confirm", "https", "1.3"), edge
    batches = f"payflow.payment_ids:{quote(PAID['payment_id'])}"
    handled = {"account", "risk", "audit", "notification"}
    eventually(lambda: {line["service.name"] for line in found(batches)} >= handled, "the batches that it was in")
    # The cache writes no JSON: its lines are documents with a message.
    eventually(lambda: bool(found("container.name:redis\\-cache AND message:*")), "lines of a server that is not ours")


def found(query: str) -> list[dict[str, Any]]:
    """The documents that a query finds in the store of logs."""
    status, answer = ask(f"{STORE}/payflow-logs/_search?size=100&q={quote(query)}")
    assert status == 200, answer
    return [hit["_source"] for hit in answer["hits"]["hits"]]


def its_metrics_are_in_prometheus() -> None:
    gateways_and_services = sum(1 for name in services("core") if is_ours(name)) - 1  # the other bank is not ours
    eventually(lambda: value('sum(up{job="payflow"})') == gateways_and_services, "every process is scraped")
    eventually(lambda: value('sum(payflow_payments_total{state="COMPLETED"})') >= 1, "a payment is counted")
    calls = 'sum({__name__=~"traces_.*calls_total",service_name="confirm"})'
    eventually(lambda: value(calls) >= 1, "the collector's count of spans")


def the_servers_and_the_edge_are_watched_too() -> None:
    for query in ("max(pg_up)", "max(redis_up)", "min(probe_success)", 'min(up{job!="payflow"})'):
        eventually(partial(is_one, query), f"{query} is 1")
    eventually(lambda: value("min(probe_ssl_earliest_cert_expiry) - time()") > 0, "when the certificate ends")
    eventually(lambda: value("count(node_filesystem_avail_bytes)") >= 1, "the machine's disks")


def every_target_of_the_shipped_configuration_is_scraped() -> None:
    wanted = {
        (job["job_name"], target)
        for job in shipped("prometheus/prometheus.yml")["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }

    def states() -> dict[tuple[str, str], str]:
        targets = ask(f"{PROMETHEUS}/api/v1/targets?state=active")[1]["data"]["activeTargets"]
        # What a probe asks is in `instance`; where Prometheus goes for it, the prober, is not.
        labels = [(one["labels"]["job"], one["labels"]["instance"], one["health"]) for one in targets]
        return {(job, instance): health for job, instance, health in labels}

    eventually(lambda: states() == dict.fromkeys(wanted, "up"), f"all {len(wanted)} targets are up")
    print(f"      {len(wanted)} targets up")


def the_rules_are_loaded_and_reach_an_alertmanager_that_has_its_routes() -> None:
    rules = [rule for group in shipped("prometheus/alerts.yml")["groups"] for rule in group["rules"]]
    wanted = {rule["alert"] for rule in rules if "alert" in rule}  # the others record

    def healthy() -> set[str]:
        groups = ask(f"{PROMETHEUS}/api/v1/rules?type=alert")[1]["data"]["groups"]
        return {rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "ok"}

    eventually(lambda: healthy() == wanted, f"all {len(wanted)} alerts are evaluated")
    active = ask(f"{PROMETHEUS}/api/v1/alertmanagers")[1]["data"]["activeAlertmanagers"]
    assert [one["url"] for one in active] == ["http://alertmanager:9093/api/v2/alerts"], active
    routes = shipped("alertmanager/alertmanager.yml")
    loaded = yaml.safe_load(ask(f"{ALERTMANAGER}/api/v2/status")[1]["config"]["original"])
    assert [one["name"] for one in loaded["receivers"]] == [one["name"] for one in routes["receivers"]], loaded
    assert loaded["route"]["receiver"] == routes["route"]["receiver"], loaded
    assert [one["receiver"] for one in loaded["route"]["routes"]] == ["pages"], loaded
    eventually(lambda: is_one("alertmanager_config_last_reload_successful"), "Alertmanager took its configuration")
    print(f"      {len(wanted)} alerts evaluated")


def shipped(path: str) -> dict[str, Any]:
    """A configuration as it ships."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / path).read_text(encoding="utf-8"))
    return found


def is_one(query: str) -> bool:
    """Whether a query gives 1."""
    return value(query) == 1


def value(query: str) -> float:
    """What a query gives; -1 where it gives nothing."""
    status, answer = ask(f"{PROMETHEUS}/api/v1/query?query={quote(query)}")
    assert status == 200, answer
    series = answer["data"]["result"]
    return float(series[0]["value"][1]) if series else -1.0


def a_service_that_is_stopped_raises_an_alert_that_ends_when_it_is_back() -> None:
    compose("stop", "kyc-service")
    began_at = time.monotonic()
    eventually(lambda: "firing" in states_of("ProcessDown", "kyc"), "the alert fires", seconds=240)
    print(f"      fired after {time.monotonic() - began_at:.0f} s")
    eventually(lambda: passed_on("ProcessDown", "kyc") == ["pages"], "Alertmanager has it for those who are woken")
    print(f"      with Alertmanager after {time.monotonic() - began_at:.0f} s")
    compose("start", "kyc-service")
    began_at = time.monotonic()
    eventually(lambda: states_of("ProcessDown", "kyc") == set(), "the alert ends", seconds=240)
    print(f"      ended after {time.monotonic() - began_at:.0f} s")
    eventually(lambda: passed_on("ProcessDown", "kyc") == [], "Alertmanager has it no longer", seconds=240)
    print(f"      with Alertmanager after {time.monotonic() - began_at:.0f} s")


def passed_on(alert: str, process: str) -> list[str]:
    """Whom Alertmanager tells of an alert of a process."""
    status, alerts = ask(f"{ALERTMANAGER}/api/v2/alerts?active=true&filter={quote(f'alertname={alert}')}")
    assert status == 200, alerts
    return [to["name"] for one in alerts if one["labels"].get("process") == process for to in one["receivers"]]


def states_of(alert: str, process: str) -> set[str]:
    """The states in which an alert is for a process."""
    alerts = ask(f"{PROMETHEUS}/api/v1/alerts")[1]["data"]["alerts"]
    labels = [(one["labels"]["alertname"], one["labels"].get("process"), one["state"]) for one in alerts]
    return {state for name, whose, state in labels if (name, whose) == (alert, process)}


def no_line_was_refused_and_no_collector_was_lost() -> None:
    collected = compose("logs", "--no-log-prefix", "--no-color", "otel-collector")
    assert "failed to index document" not in collected, collected[-3000:]
    assert '"level":"error"' not in collected, collected[-3000:]
    for name in filter(is_ours, containers(running=True)):
        lost = [line for line in lines_of(name) if line["message"] == "otlp.failing"]
        assert not lost, (name, lost)


def all_of_it_fits_into_four_gigabytes() -> None:
    memory_is_enough()


def pay_with_headers(token: str) -> tuple[int, Any, dict[str, str]]:
    """A small payment through the edge with TLS: status, answer, header fields."""
    headers: dict[str, str] = {}
    status, answer = pay(token, f"watched-{uuid4()}", "1.00", at=HTTPS, headers=headers)
    return status, answer, headers


CHECKS: Final[tuple[Callable[[], None], ...]] = (
    everything_that_can_be_had_here_starts_and_becomes_healthy,
    the_edge_answers_with_and_without_tls,
    a_payment_through_the_edge_is_one_trace_over_all_services,
    its_log_lines_are_found_by_payment_and_by_trace,
    its_metrics_are_in_prometheus,
    the_servers_and_the_edge_are_watched_too,
    every_target_of_the_shipped_configuration_is_scraped,
    the_rules_are_loaded_and_reach_an_alertmanager_that_has_its_routes,
    a_service_that_is_stopped_raises_an_alert_that_ends_when_it_is_back,
    no_line_was_refused_and_no_collector_was_lost,
    all_of_it_fits_into_four_gigabytes,
)
