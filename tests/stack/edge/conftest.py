"""An edge before two recorders, shared by the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.nginx import Nginx, running_nginx
from tests.support.recorder import Gateways, recording


@pytest.fixture(scope="module")
def recorders() -> Iterator[Gateways]:
    with recording() as first, recording() as second:
        yield Gateways(first, second)


@pytest.fixture
def gateways(recorders: Gateways) -> Gateways:
    """Two stand-ins for gateways that remember what reaches them; at a test's beginning they remember nothing."""
    recorders.forget()
    return recorders


@pytest.fixture(scope="module")
def nginx(recorders: Gateways) -> Iterator[Nginx]:
    """The edge before them, as it ships."""
    with running_nginx(recorders.addresses) as nginx:
        yield nginx
