"""deploy/prometheus/prometheus.yml: what Prometheus asks for metrics, every process of the registry among it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from payflow.run.registry import SERVICES
from payflow_dev.deploy.names import GENERATED, address_of
from payflow_dev.deploy.yaml import Block, dump

INTERVAL: Final = "10s"
# Beside our own processes: the collector's view of all spans, and the watchers themselves.
_OTHERS: Final = {
    "spans": "otel-collector:8889",
    "otel-collector": "otel-collector:8888",
    "prometheus": "localhost:9090",
    "alertmanager": "alertmanager:9093",
    "postgres": "postgres-exporter:9187",
    "redis": "redis-exporter:9121",
    "node": "node-exporter:9100",
}
_ALERTMANAGERS: Final = ("alertmanager:9093",)
# Asked by the blackbox exporter as a customer would, from outside.
_PROBER: Final = "blackbox-exporter:9115"
_PROBED: Final = ("http://nginx:8080/live", "https://nginx:8443/health")


def targets() -> dict[str, str]:
    """Where the metrics of each process are: {"gateway-1": "api-gateway-1:3001"}."""
    return {row.name: address_of(row) for row in SERVICES}


class Watched(NamedTuple):
    """What is watched beside our own processes, by whom alerts are passed on, and what is probed by whom."""

    others: Mapping[str, str]
    alertmanagers: Sequence[str] = ()
    prober: str = ""
    probed: Sequence[str] = ()


COMPOSE: Final = Watched(_OTHERS, _ALERTMANAGERS, _PROBER, _PROBED)


def prometheus_yml(
    processes: Mapping[str, str] | None = None, *, interval: str = INTERVAL, watched: Watched = COMPOSE
) -> str:
    """The whole file; `processes` ("host:port" by name) and `watched` in place of Compose's."""
    chosen = targets() if processes is None else processes
    jobs = [_payflow(chosen), *(_job(name, address) for name, address in watched.others.items())]
    if watched.probed:
        jobs.append(_probes(watched.prober, watched.probed))
    document: Block = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": interval},
        "rule_files": ["alerts.yml"],
    }
    if watched.alertmanagers:
        static = [{"targets": list(watched.alertmanagers)}]
        document["alerting"] = {"alertmanagers": [{"static_configs": static}]}
    document["scrape_configs"] = jobs
    return f"{GENERATED}\n{dump(document)}"


def _payflow(processes: Mapping[str, str]) -> Block:
    """One job for all processes. `process` tells them apart; `service` is a label of their own metrics."""
    entries = [{"targets": [address], "labels": {"process": name}} for name, address in processes.items()]
    return {"job_name": "payflow", "static_configs": entries}


def _job(name: str, address: str) -> Block:
    return {"job_name": name, "static_configs": [{"targets": [address]}]}


def _probes(prober: str, probed: Sequence[str]) -> Block:
    """The prober is scraped once for each address, which is what the series are named after."""
    return {
        "job_name": "probes",
        "metrics_path": "/probe",
        "params": {"module": ["payflow"]},
        "static_configs": [{"targets": list(probed)}],
        "relabel_configs": [
            {"source_labels": ["__address__"], "target_label": "__param_target"},
            {"source_labels": ["__param_target"], "target_label": "instance"},
            {"target_label": "__address__", "replacement": prober},
        ],
    }
