"""The event log on Kafka keeps what every event log promises."""

from __future__ import annotations

from tests.event_log_suite import EventLogSuite


class TestOnKafka(EventLogSuite):
    """See the suite."""
