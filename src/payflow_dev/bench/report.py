"""A whole run as data: what `--json` writes and the tables show."""

from __future__ import annotations

import msgspec

from payflow_dev.bench.database import TablesFigures
from payflow_dev.bench.goals import Goal
from payflow_dev.bench.machine import MachineFacts
from payflow_dev.bench.memory import Memory
from payflow_dev.bench.money import MoneyReport
from payflow_dev.bench.overload import Overload
from payflow_dev.bench.pgbench import PgbenchRun
from payflow_dev.bench.results import Settings, Step
from payflow_dev.bench.velocity import Velocity


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `pgbench_choice`: one run for each number of clients, the fastest first; then one between steps.

    `idle_load`: CPU seconds per second of the instance before the first payment. It and `money` are None where only an
    address was known. `tables`: rows written by all steps together. `overload`, `memory` and `velocity` are of the
    modes of these names.
    """

    machine: MachineFacts
    settings: Settings
    idle_load: float | None
    pgbench_choice: list[PgbenchRun]
    pgbench: list[PgbenchRun]
    steps: list[Step]
    money: MoneyReport | None
    made_at: str = ""
    tables: TablesFigures | None = None
    overload: Overload | None = None
    memory: Memory | None = None
    velocity: Velocity | None = None

    @property
    def goals(self) -> list[Goal]:
        """What the mode was to show."""
        return [goal for part in (self.overload, self.memory, self.velocity) if part is not None for goal in part.goals]

    @property
    def has_acknowledged(self) -> bool:
        """Whether any payment was acknowledged."""
        return any(step.acknowledged for step in self.steps) or (self.memory is not None and self.memory.payments > 0)
