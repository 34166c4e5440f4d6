"""The simulated ledger keeps what the port suites ask of PostgreSQL: the same tests run over it."""

from __future__ import annotations

import pytest

from tests.builders_account import World
from tests.ports import test_account_history, test_account_ledger, test_account_store
from tests.simulation.doors import OpenDoor
from tests.simulation.ledger import LedgerTables, MemoryLedger
from tests.simulation.suites import borrowed_from


@pytest.fixture
def world() -> World:
    return World(MemoryLedger(LedgerTables(), OpenDoor()))


for suite in (test_account_store, test_account_ledger, test_account_history):
    globals().update(borrowed_from(suite))
