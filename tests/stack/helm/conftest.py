"""Helm is built before the first test: it takes a minute or more, which is no test's time."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stack.helm.chart import find_helm


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build Helm where a test of this folder was chosen. Where it cannot be had, each of them says so."""
    if session.config.option.collectonly:
        return
    if any(Path(__file__).parent in item.path.parents for item in session.items):
        find_helm()
