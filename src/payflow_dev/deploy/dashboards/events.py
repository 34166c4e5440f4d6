"""Events: how soon they have their effects, what waits, and what was set aside."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.panels import RANGE, Dashboard, Line, Panel, or_none, quantile, rate

_DELAY: Final = "payflow_event_delay_seconds_bucket"
_PANELS: Final = (
    Panel(
        "Age of the oldest event that nobody was sent",
        [Line("max(payflow_outbox_oldest_unsent_seconds) or max(payflow_event_oldest_unsent_seconds)", "seconds")],
        "s",
        "stat",
        6,
        "With Kafka: that is not in Kafka yet.",
    ),
    Panel(
        "Set aside",
        [Line("sum(payflow_events_dead_lettered_total) or vector(0)", "since the start")],
        kind="stat",
        width=6,
        description="docs/runbooks/stuck-payments.md#events-set-aside",
    ),
    Panel(
        "Published to Kafka",
        [Line(or_none(f"sum(rate(payflow_outbox_published_total[{RANGE}]))"), "events")],
        "reqps",
        "stat",
        6,
    ),
    Panel(
        "Handled",
        [Line(f"sum(rate(payflow_events_consumed_total[{RANGE}]))", "events")],
        "reqps",
        "stat",
        6,
    ),
    Panel(
        "From happening to committed effect: half of them",
        [Line(quantile(0.5, _DELAY, by="consumer"), "{{consumer}}")],
        "s",
        width=12,
    ),
    Panel(
        "From happening to committed effect: 99 of 100",
        [Line(quantile(0.99, _DELAY, by="consumer"), "{{consumer}}")],
        "s",
        width=12,
    ),
    Panel("Handled by consumer", [Line(rate("payflow_events_consumed_total", by="consumer"), "{{consumer}}")], "reqps"),
    Panel(
        "Waiting in PostgreSQL, batches",
        [
            Line(or_none("max by (consumer) (payflow_event_lag_batches)"), "{{consumer}}"),
            Line("max(payflow_outbox_unsent_batches) or vector(0)", "to be published to Kafka"),
        ],
    ),
    Panel(
        "Waiting in Kafka, events",
        [Line(or_none("sum by (consumer) (payflow_event_lag_events)"), "{{consumer}}")],
    ),
    Panel(
        "Times that a consumer could not go on",
        [Line(or_none(rate("payflow_event_waits_total", by="consumer")), "{{consumer}}")],
        "reqps",
    ),
    Panel(
        "Messages to customers",
        [Line(or_none(rate("payflow_channel_messages_total", by="channel, outcome")), "{{channel}} {{outcome}}")],
        "reqps",
    ),
    Panel(
        "Calls of webhooks",
        [Line(or_none(rate("payflow_webhook_attempts_total", by="outcome")), "{{outcome}}")],
        "reqps",
    ),
)
EVENTS: Final = Dashboard("payflow-events", "Events", _PANELS)
