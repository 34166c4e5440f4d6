"""Services, for operators: rate, errors and duration of each, and what it uses."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.panels import (
    FAILURES,
    PROMETHEUS,
    RANGE,
    Dashboard,
    Line,
    Panel,
    or_none,
    quantile,
    rate,
)

_PANELS: Final = (
    Panel(
        "Processes that answer",
        [Line('sum(up{job="payflow"})', "up"), Line('count(up{job="payflow"})', "all")],
        kind="stat",
        width=6,
    ),
    Panel("Calls a second", [Line(f"sum(rate(payflow_rpc_seconds_count[{RANGE}]))", "calls")], "reqps", "stat", 6),
    Panel(
        "Failures a second",
        [Line(f'sum(rate(payflow_rpc_answers_total{{code=~"{FAILURES}"}}[{RANGE}])) or vector(0)', "failures")],
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
        [Line(f'rate(process_cpu_seconds_total{{job="payflow"}}[{RANGE}])', "{{process}}")],
        "percentunit",
    ),
    Panel("Memory of each process", [Line('process_resident_memory_bytes{job="payflow"}', "{{process}}")], "bytes"),
    Panel("Open files of each process", [Line('process_open_fds{job="payflow"}', "{{process}}")]),
    Panel(
        "Events handled",
        [Line(rate("payflow_events_consumed_total", by="consumer"), "{{consumer}}")],
        "reqps",
    ),
    Panel(
        "Batches of events not yet read",
        [Line(or_none("max by (consumer) (payflow_event_lag_batches)"), "{{consumer}}")],
    ),
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
_SERVICE: Final = {
    "name": "service",
    "label": "Service",
    "type": "query",
    "datasource": PROMETHEUS,
    "query": {"query": "label_values(payflow_rpc_seconds_count, service)", "refId": "service"},
    "refresh": 2,
    "multi": True,
    "includeAll": True,
    "current": {"text": "All", "value": "$__all"},
}
SERVICES: Final = Dashboard("payflow-services", "Services", _PANELS, [_SERVICE])
