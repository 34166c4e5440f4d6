"""Every generated file of a deployment, by its path in the repository."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from payflow_dev.deploy import compose, dashboards, environment, logs, nginx, prometheus

NGINX: Final = "deploy/nginx/payflow"

FILES: Final[dict[str, Callable[[], str]]] = {
    ".env.example": environment.env_example,
    "deploy/compose/core.yaml": compose.core_yaml,
    "deploy/elastic/template.json": logs.template_json,
    "deploy/grafana/dashboards/payments.json": dashboards.payments_json,
    "deploy/grafana/dashboards/services.json": dashboards.services_json,
    "deploy/prometheus/prometheus.yml": prometheus.prometheus_yml,
    f"{NGINX}/upstream.conf": nginx.upstream_conf,
    f"{NGINX}/routes.conf": nginx.routes_conf,
    f"{NGINX}/public.conf": nginx.public_conf,
    f"{NGINX}/problems.conf": nginx.problems_conf,
    f"{NGINX}/problem_headers.conf": nginx.problem_headers_conf,
}


def contents() -> dict[str, str]:
    """What each file should hold."""
    return {path: make() for path, make in FILES.items()}
