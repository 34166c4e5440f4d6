"""deploy/prometheus/prometheus.yml: what Prometheus asks for metrics, every process of the registry among it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from payflow.run.registry import SERVICES
from payflow_dev.deploy.names import GENERATED, address_of
from payflow_dev.deploy.yaml import Block, dump

INTERVAL: Final = "10s"
# Beside our own processes: the collector's view of all spans, and the watchers themselves.
_OTHERS: Final = {
    "spans": "otel-collector:8889",
    "otel-collector": "otel-collector:8888",
    "prometheus": "localhost:9090",
}


def targets() -> dict[str, str]:
    """Where the metrics of each process are: {"gateway-1": "api-gateway-1:3001"}."""
    return {row.name: address_of(row) for row in SERVICES}


def prometheus_yml(
    processes: Mapping[str, str] | None = None, *, interval: str = INTERVAL, others: Mapping[str, str] | None = None
) -> str:
    """The whole file; `processes` ("host:port" by name) and `others` in place of Compose's."""
    chosen = targets() if processes is None else processes
    watched = _OTHERS if others is None else others
    document: Block = {
        "global": {"scrape_interval": interval, "evaluation_interval": interval, "scrape_timeout": interval},
        "rule_files": ["alerts.yml"],
        "scrape_configs": [_payflow(chosen), *(_job(name, address) for name, address in watched.items())],
    }
    return f"{GENERATED}\n{dump(document)}"


def _payflow(processes: Mapping[str, str]) -> Block:
    """One job for all processes. `process` tells them apart; `service` is a label of their own metrics."""
    entries = [{"targets": [address], "labels": {"process": name}} for name, address in processes.items()]
    return {"job_name": "payflow", "static_configs": entries}


def _job(name: str, address: str) -> Block:
    return {"job_name": name, "static_configs": [{"targets": [address]}]}
