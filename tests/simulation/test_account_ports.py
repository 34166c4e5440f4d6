"""The simulated ledger keeps what the port suites ask of PostgreSQL: the same tests run over it."""

from __future__ import annotations

import pytest

from tests.ports import test_account_history as history
from tests.ports import test_account_store as suite
from tests.simulation.doors import OpenDoor
from tests.simulation.ledger import LedgerTables, MemoryLedger
from tests.simulation.suites import borrowed_from


@pytest.fixture
def world() -> suite.World:
    return suite.World(MemoryLedger(LedgerTables(), OpenDoor()))


globals().update(borrowed_from(suite))
globals().update(borrowed_from(history))
