"""The event log on PostgreSQL keeps what every event log promises."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.builders_event_log import ConnectAs, Log, empty_log
from tests.event_log_suite import EventLogSuite


@pytest.fixture
async def log(database_url: str, connect_as: ConnectAs, password_files: dict[str, Path]) -> AsyncIterator[Log]:
    async with empty_log(database_url, connect_as, password_files) as log:
        yield log


class TestOnPostgres(EventLogSuite):
    """See the suite."""
