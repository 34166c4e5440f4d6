"""Confirm's simulated store of returns keeps what the port suite asks of PostgreSQL: the same tests run over it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.builders_confirm import World
from tests.ports import test_returns, test_returns_recovery
from tests.simulation.doors import OpenDoor
from tests.simulation.payments import MemoryPayments, PaymentTables
from tests.simulation.returns import MemoryReturns, ReturnTables
from tests.simulation.suites import borrowed_from


@pytest.fixture
async def world() -> AsyncIterator[World]:
    made = World(MemoryPayments(PaymentTables(), OpenDoor()), MemoryReturns(ReturnTables(), OpenDoor()))
    await made.open_accounts()
    yield made
    await made.background.finish()


globals().update(borrowed_from(test_returns) | borrowed_from(test_returns_recovery))
