"""A watched Payflow for each module that asks for one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.watched import World, running_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Payflow with its event log in PostgreSQL."""
    with running_world(tmp_path_factory.mktemp("watchers")) as world:
        yield world


@pytest.fixture(autouse=True)
def news(request: pytest.FixtureRequest) -> None:
    """What earlier tests of a watched Payflow made it tell is no news to this one."""
    if "world" in request.fixturenames:
        request.getfixturevalue("world").news.begin()
