"""PostgreSQL, Redis and Kafka: as the services see them, and as they see themselves by their exporters."""

from __future__ import annotations

from typing import Final

from payflow_dev.deploy.dashboards.panels import RANGE, Dashboard, Line, Panel, or_none, quantile, rate

_DATABASE: Final = 'datname!~"template.*|"'
_PANELS: Final = (
    Panel("PostgreSQL answers", [Line("max(pg_up)", "1: yes")], kind="stat", width=6),
    Panel("Redis answers", [Line("max(redis_up)", "1: yes")], kind="stat", width=6),
    Panel(
        "Size of the databases",
        [Line(f"sum(pg_database_size_bytes{{{_DATABASE}}})", "bytes")],
        "bytes",
        "stat",
        6,
    ),
    Panel("Memory of Redis", [Line("max(redis_memory_used_bytes)", "bytes")], "bytes", "stat", 6),
    Panel(
        "Transactions",
        [
            Line(f"sum(rate(pg_stat_database_xact_commit{{{_DATABASE}}}[{RANGE}]))", "committed"),
            Line(f"sum(rate(pg_stat_database_xact_rollback{{{_DATABASE}}}[{RANGE}]))", "rolled back"),
        ],
        "reqps",
    ),
    Panel(
        "Rows written",
        [
            Line(f"sum(rate(pg_stat_database_tup_{verb}{{{_DATABASE}}}[{RANGE}]))", verb)
            for verb in ("inserted", "updated", "deleted")
        ],
        "reqps",
    ),
    Panel(
        "Read from memory, of all blocks read",
        [
            Line(
                f"sum(rate(pg_stat_database_blks_hit{{{_DATABASE}}}[{RANGE}])) / "
                f"(sum(rate(pg_stat_database_blks_hit{{{_DATABASE}}}[{RANGE}]))"
                f" + sum(rate(pg_stat_database_blks_read{{{_DATABASE}}}[{RANGE}])))",
                "hits",
            )
        ],
        "percentunit",
    ),
    Panel(
        "Connections of the server",
        [
            Line("sum by (state) (pg_stat_activity_count)", "{{state}}"),
            Line("max(pg_settings_max_connections)", "at most"),
        ],
        width=12,
    ),
    Panel(
        "Longest transaction",
        [Line("max(pg_stat_activity_max_tx_duration)", "seconds")],
        "s",
        width=12,
        description="One that stays open for long keeps the server from tidying up behind everybody.",
    ),
    Panel(
        "Services waiting for a connection",
        [Line(quantile(0.99, "payflow_postgres_wait_seconds_bucket", by="process"), "{{process}} p99")],
        "s",
        width=12,
    ),
    Panel(
        "Connections in use by services",
        [Line("sum by (process, state) (payflow_postgres_connections)", "{{process}} {{state}}")],
        width=12,
    ),
    Panel(
        "Failures of the database as services see them",
        [Line(or_none(rate("payflow_postgres_failures_total", by="process, kind")), "{{process}} {{kind}}")],
        "reqps",
    ),
    Panel("Commands of Redis", [Line(f"sum(rate(redis_commands_processed_total[{RANGE}]))", "commands")], "reqps"),
    Panel(
        "Looked up without Redis",
        [Line(or_none(rate("payflow_guard_fallbacks_total", by="part")), "{{part}}")],
        "reqps",
    ),
    Panel(
        "Kafka: waiting to be published",
        [Line("max(payflow_outbox_unsent_batches) or vector(0)", "batches")],
        width=12,
    ),
    Panel(
        "Kafka: not handled yet",
        [Line(or_none("sum by (consumer) (payflow_event_lag_events)"), "{{consumer}}")],
        width=12,
    ),
)
SERVERS: Final = Dashboard("payflow-servers", "PostgreSQL, Redis, Kafka", _PANELS)
