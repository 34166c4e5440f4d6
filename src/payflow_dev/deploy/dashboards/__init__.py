"""Grafana's dashboards, from the metrics that there are. tests/stack asks a real Prometheus every query meanwhile."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.events import EVENTS
from payflow_dev.deploy.dashboards.ledger import LEDGER
from payflow_dev.deploy.dashboards.panels import Dashboard
from payflow_dev.deploy.dashboards.payments import PAYMENTS
from payflow_dev.deploy.dashboards.servers import SERVERS
from payflow_dev.deploy.dashboards.services import SERVICES
from payflow_dev.deploy.dashboards.slo import SLO
from payflow_dev.deploy.dashboards.way import WAY

# By the name of the file.
DASHBOARDS: Final[dict[str, Dashboard]] = {
    "payments": PAYMENTS,
    "way": WAY,
    "ledger": LEDGER,
    "events": EVENTS,
    "services": SERVICES,
    "servers": SERVERS,
    "slo": SLO,
}
