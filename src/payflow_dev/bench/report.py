"""A whole run as data: what `--json` writes and the tables show."""

from __future__ import annotations

import msgspec

from payflow_dev.bench.database import TablesFigures
from payflow_dev.bench.delays import Delay
from payflow_dev.bench.goals import Goal
from payflow_dev.bench.machine import MachineFacts
from payflow_dev.bench.memory import Memory
from payflow_dev.bench.money import MoneyReport
from payflow_dev.bench.overload import Overload
from payflow_dev.bench.pgbench import PgbenchRun
from payflow_dev.bench.results import Settings, Step
from payflow_dev.bench.velocity import Velocity


class Variation(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run the same: mean rate and cost, and the rate over that of the plain one, round by round."""

    name: str
    payments_per_s: float
    cpu_us_per_payment: float
    ratio: float
    low: float
    high: float
    is_money_right: bool


class Stack(msgspec.Struct, frozen=True, kw_only=True):
    """The event log in PostgreSQL or Kafka, with and without telemetry, in one run; and how long events take."""

    variations: list[Variation]
    delays: list[Delay]
    goals: list[Goal]


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run. `pgbench_choice`: one run for each number of clients, the fastest first; then one between steps.

    `idle_load`: CPU seconds per second of the instance before the first payment. It and `money` are None where only an
    address was known. `tables`: rows written by all steps together. `overload`, `memory`, `velocity` and `stack` are
    of the modes of these names.
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
    stack: Stack | None = None

    @property
    def goals(self) -> list[Goal]:
        """What the mode was to show."""
        parts = (self.overload, self.memory, self.velocity, self.stack)
        return [goal for part in parts if part is not None for goal in part.goals]

    @property
    def has_acknowledged(self) -> bool:
        """Whether any payment was acknowledged."""
        return any(step.acknowledged for step in self.steps) or (self.memory is not None and self.memory.payments > 0)
