"""Customers of whichever instance a file starts as `system`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.stack.data.world import World, world_of
from tests.support.system import System


@pytest.fixture(scope="module")
async def world(system: System) -> AsyncIterator[World]:
    async with world_of(system) as world:
        yield world
