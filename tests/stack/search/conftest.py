"""OpenSearch is fetched before the first test: that takes a minute or more, which is no test's time."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest

from payflow_dev.kafka.jars import ToolMissing
from tests.support.search_node import fetch


def pytest_collection_finish(session: pytest.Session) -> None:
    """Fetch it where a test of this folder was chosen. Where it cannot be had, each of them says so."""
    if session.config.option.collectonly:
        return
    if any(Path(__file__).parent in item.path.parents for item in session.items):
        with suppress(ToolMissing):
            fetch()
