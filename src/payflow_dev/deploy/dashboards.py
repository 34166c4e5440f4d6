"""Grafana's dashboards, from the metrics that the services have: "Payments" for the business, "Services" for operators.

A panel is a title, a PromQL query for each line, and what the numbers are. tests/stack asks a real Prometheus every
query while payments are made.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias

Dashboard: TypeAlias = dict[str, Any]

# Codes of answers that are no refusal of what was asked for but a failure to do it.
FAILURES: Final = "SERVICE_UNAVAILABLE|OVERLOADED|DEADLINE_EXCEEDED|UNKNOWN_OUTCOME|INTERNAL_ERROR"
_RANGE: Final = "$__rate_interval"
_CONFIRM: Final = 'service="confirm",operation=~"confirm|confirm_with_otp"'
_WIDTH: Final = 24
_HEIGHT: Final = 8


class Line(NamedTuple):
    """One query of a panel, and the name of what it gives."""

    query: str
    legend: str


class Panel(NamedTuple):
    """One picture. `unit` is Grafana's word, `kind` timeseries or stat, `description` for whoever reads it."""

    title: str
    lines: Sequence[Line]
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    description: str = ""


def rate(selector: str, *, by: str) -> str:
    """How often a second, by some labels."""
    return f"sum by ({by}) (rate({selector}[{_RANGE}]))"


def quantile(which: float, histogram: str, *, by: str = "") -> str:
    """The quantile of a histogram, in its unit."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({which}, sum by ({labels}) (rate({histogram}[{_RANGE}])))"


def or_none(query: str) -> str:
    """0 where a counter has never counted, and so is not there."""
    return f"{query} or vector(0)"


def _quantiles(histogram: str) -> list[Line]:
    return [Line(quantile(which, histogram), f"p{which * 100:g}") for which in (0.5, 0.95, 0.99)]


PAYMENTS: Final = (
    Panel(
        "Payments a second",
        [Line(f'sum(rate(payflow_rpc_answers_total{{{_CONFIRM},code="OK"}}[{_RANGE}]))', "taken")],
        "reqps",
        "stat",
        4,
    ),
    Panel(
        "Money movements a second",
        [
            Line(
                'sum(rate(payflow_rpc_answers_total{service="account",operation=~"transfer|capture_hold",code="OK"}'
                f"[{_RANGE}]))",
                "booked",
            )
        ],
        "reqps",
        "stat",
        4,
        "Payments that were booked: transfers here, and holds captured for other banks.",
    ),
    Panel(
        "Unfinished payments",
        [Line("sum(max by (state) (payflow_payments_open))", "unfinished")],
        kind="stat",
        width=4,
    ),
    Panel(
        "Waiting for the other bank",
        [Line('max(payflow_payments_open{state="SUBMITTED"})', "submitted")],
        kind="stat",
        width=4,
    ),
    Panel(
        "Waiting for a review",
        [Line('max(payflow_payments_open{state="UNDER_REVIEW"})', "under review")],
        kind="stat",
        width=4,
    ),
    Panel(
        "Rules of the ledger that are broken",
        [Line("max(payflow_ledger_broken)", "broken")],
        kind="stat",
        width=4,
        description="Of the last verification. Anything but 0 is an alert: docs/runbooks/ledger.md.",
    ),
    Panel(
        "Answers to payments",
        [Line(rate(f"payflow_rpc_answers_total{{{_CONFIRM}}}", by="code"), "{{code}}")],
        "reqps",
        width=12,
        description="OK is every payment that was taken, refusals of the business by their code beside it.",
    ),
    Panel("Time of a payment at confirm", _quantiles(f"payflow_rpc_seconds_bucket{{{_CONFIRM}}}"), "s", width=12),
    Panel("Unfinished payments by state", [Line("max by (state) (payflow_payments_open)", "{{state}}")], width=12),
    Panel(
        "Age of the oldest by state",
        [Line("max by (state) (payflow_oldest_payment_age_seconds)", "{{state}}")],
        "s",
        width=12,
    ),
    Panel(
        "Screened against sanctions lists",
        [Line(rate("payflow_screened_payments_total", by="outcome"), "{{outcome}}")],
        "reqps",
    ),
    Panel(
        "One-time passwords",
        [Line(rate('payflow_rpc_answers_total{service="otp"}', by="operation, code"), "{{operation}} {{code}}")],
        "reqps",
    ),
    Panel(
        "Messages to other banks",
        [Line(rate("payflow_bank_messages_total", by="agent, kind, outcome"), "{{agent}} {{kind}} {{outcome}}")],
        "reqps",
    ),
    Panel("Unfinished returns", [Line("max by (state) (payflow_returns_open)", "{{state}}")]),
    Panel("Unfinished bulk orders", [Line("max by (state) (payflow_bulk_orders_open)", "{{state}}")]),
    Panel("Lines of bulk orders", [Line(f"sum(rate(payflow_bulk_lines_total[{_RANGE}]))", "begun")], "reqps"),
    Panel(
        "Calls of webhooks",
        [Line(or_none(rate("payflow_webhook_attempts_total", by="outcome")), "{{outcome}}")],
        "reqps",
        width=12,
    ),
    Panel(
        "Since the ledger was verified",
        [Line("time() - max(payflow_ledger_verified_at > 0) or vector(-1)", "seconds; -1: not since the start")],
        "s",
        width=12,
    ),
)
SERVICES: Final = (
    Panel(
        "Processes that answer",
        [Line('sum(up{job="payflow"})', "up"), Line('count(up{job="payflow"})', "all")],
        kind="stat",
        width=6,
    ),
    Panel("Calls a second", [Line(f"sum(rate(payflow_rpc_seconds_count[{_RANGE}]))", "calls")], "reqps", "stat", 6),
    Panel(
        "Failures a second",
        [Line(f'sum(rate(payflow_rpc_answers_total{{code=~"{FAILURES}"}}[{_RANGE}])) or vector(0)', "failures")],
        "reqps",
        "stat",
        6,
    ),
    Panel(
        "Events set aside",
        [Line("sum(payflow_events_dead_lettered_total) or vector(0)", "since the start")],
        kind="stat",
        width=6,
        description="docs/runbooks/stuck-payments.md#events-set-aside",
    ),
    Panel(
        "Rate: calls by service",
        [Line(rate('payflow_rpc_seconds_count{service=~"$service"}', by="service"), "{{service}}")],
        "reqps",
    ),
    Panel(
        "Errors: failures by service",
        [
            Line(
                or_none(
                    rate(f'payflow_rpc_answers_total{{service=~"$service",code=~"{FAILURES}"}}', by="service, code")
                ),
                "{{service}} {{code}}",
            )
        ],
        "reqps",
        description="Answers that say that it could not be done; refusals of the business are not among them.",
    ),
    Panel(
        "Duration: 95 of 100 calls",
        [Line(quantile(0.95, 'payflow_rpc_seconds_bucket{service=~"$service"}', by="service"), "{{service}}")],
        "s",
    ),
    Panel(
        "Calls by operation",
        [
            Line(
                "topk(15, " + rate('payflow_rpc_seconds_count{service=~"$service"}', by="service, operation") + " > 0)",
                "{{service}}.{{operation}}",
            )
        ],
        "reqps",
        width=12,
    ),
    Panel(
        "Items in a call",
        [
            Line(
                rate('payflow_rpc_batch_items_sum{callee=~"$service"}', by="callee")
                + " / "
                + rate('payflow_rpc_batch_items_count{callee=~"$service"}', by="callee"),
                "{{callee}}",
            )
        ],
        width=12,
        description="Every hop takes a list: the busier the system, the more travels in one call.",
    ),
    Panel(
        "Processor time of each process",
        [Line(f'rate(process_cpu_seconds_total{{job="payflow"}}[{_RANGE}])', "{{process}}")],
        "percentunit",
    ),
    Panel("Memory of each process", [Line('process_resident_memory_bytes{job="payflow"}', "{{process}}")], "bytes"),
    Panel("Open files of each process", [Line('process_open_fds{job="payflow"}', "{{process}}")]),
    Panel(
        "Events handled",
        [Line(rate("payflow_events_consumed_total", by="consumer"), "{{consumer}}")],
        "reqps",
    ),
    Panel("Batches of events not yet read", [Line("max by (consumer) (payflow_event_lag_batches)", "{{consumer}}")]),
    Panel(
        "Times that a consumer waited",
        [Line(or_none(rate("payflow_event_waits_total", by="consumer")), "{{consumer}}")],
        "reqps",
    ),
    Panel(
        "Answers without the cache",
        [Line(or_none(rate("payflow_guard_fallbacks_total", by="part")), "{{part}}")],
        "reqps",
        width=12,
        description="Rate limits and revocations that were looked up without Redis.",
    ),
    Panel(
        "Clock of each process minus the database's",
        [Line("payflow_clock_difference_seconds", "{{process}}")],
        "s",
        width=12,
    ),
)


def payments_json() -> str:
    """deploy/grafana/dashboards/payments.json."""
    return _dashboard("payflow-payments", "Payments", PAYMENTS)


def services_json() -> str:
    """deploy/grafana/dashboards/services.json."""
    variable = {
        "name": "service",
        "label": "Service",
        "type": "query",
        "datasource": _PROMETHEUS,
        "query": {"query": "label_values(payflow_rpc_seconds_count, service)", "refId": "service"},
        "refresh": 2,
        "multi": True,
        "includeAll": True,
        "current": {"text": "All", "value": "$__all"},
    }
    return _dashboard("payflow-services", "Services", SERVICES, variables=[variable])


_PROMETHEUS: Final = {"type": "prometheus", "uid": "prometheus"}


def _dashboard(uid: str, title: str, panels: Sequence[Panel], *, variables: Sequence[Any] = ()) -> str:
    document: Dashboard = {
        "uid": uid,
        "title": title,
        "tags": ["payflow"],
        "description": "GENERATED by tools/generate_deploy.py from src/payflow_dev/deploy/dashboards.py.",
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "timezone": "browser",
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "templating": {"list": list(variables)},
        "panels": _placed(panels),
    }
    return json.dumps(document, indent=2) + "\n"


def _placed(panels: Sequence[Panel]) -> list[Dashboard]:
    """The panels in rows, as many side by side as fit."""
    found: list[Dashboard] = []
    left, top = 0, 0
    for number, panel in enumerate(panels, start=1):
        height = _HEIGHT // 2 if panel.kind == "stat" else _HEIGHT
        if left + panel.width > _WIDTH:
            left, top = 0, top + int(found[-1]["gridPos"]["h"])
        found.append(_panel(number, panel, {"x": left, "y": top, "w": panel.width, "h": height}))
        left += panel.width
    return found


def _panel(number: int, panel: Panel, place: dict[str, int]) -> Dashboard:
    queries = [
        {"refId": chr(ord("A") + index), "datasource": _PROMETHEUS, "expr": line.query, "legendFormat": line.legend}
        for index, line in enumerate(panel.lines)
    ]
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _PROMETHEUS,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0 if panel.unit == "reqps" else None}, "overrides": []},
        "targets": queries,
    }
