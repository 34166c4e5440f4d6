"""Who took how much CPU while a step ran, and until what it left behind was done."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import psutil

from payflow.run.errors import StartError
from payflow.run.supervisor.status import InstanceStatus
from payflow_dev.bench import cpu
from payflow_dev.bench.database import DatabaseFigures, Reading, between
from payflow_dev.bench.drive import Driven
from payflow_dev.bench.results import Cpu
from payflow_dev.bench.target import Target


@dataclass(frozen=True, slots=True)
class Measured:
    """A step's result with its CPU and its cost in the database; `restarts` counts processes that died meanwhile."""

    driven: Driven
    cpu: Cpu
    restarts: int
    database: DatabaseFigures | None


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures steps on one instance. `idle_load`: its CPU seconds per second when nobody pays.

    `read_counters` reads the database's counters; None where they are not to be had.
    """

    target: Target
    idle_load: float
    settle_max_s: float
    on_settle: Callable[[], None]
    read_counters: Callable[[], Reading] | None = None

    def measure(self, work: Callable[[], Driven]) -> Measured:
        """Do the work, wait until its events are worked off, and tell what all that took."""
        status, this = self._status(), psutil.Process()
        counters = self.read_counters() if self.read_counters else None
        machine, before, own = cpu.machine_cpu(), cpu.cpu_by_process(status), sum(this.cpu_times()[:2])
        driven = work()
        status_after = self._status()
        after = cpu.cpu_by_process(status_after)
        machine_after, own_after = cpu.machine_cpu(), sum(this.cpu_times()[:2])
        by_process = cpu.spent(before, after)
        ours_s = sum(by_process.values()) + driven.process_cpu_s + own_after - own
        settled_after_s = self.settle()
        afterwards = cpu.spent(after, cpu.cpu_by_process(status_after))
        figures = Cpu(
            by_process=by_process,
            afterwards_s=round(sum(afterwards.values()), 3),
            settled_after_s=settled_after_s,
            loader_s=round(driven.load.cpu_s, 3),
            others_s=round(max(0.0, machine_after.busy_s - machine.busy_s - ours_s), 3),
            stolen_s=round(machine_after.stolen_s - machine.stolen_s, 3),
        )
        database = self._cost_since(counters, payments=driven.load.acknowledged_in_all)
        return Measured(driven, figures, _restarts(status_after) - _restarts(status), database)

    def _cost_since(self, counters: Reading | None, *, payments: int) -> DatabaseFigures | None:
        if counters is None or self.read_counters is None:
            return None
        return between(counters, self.read_counters(), payments=payments)

    def settle(self) -> float | None:
        """Wait until the instance is as quiet as before the first payment, so that pgbench has the machine to itself.

        Returns the seconds it took, None when that was not enough.
        """
        self.on_settle()
        return cpu.wait_until_quiet(
            self._status(), idle=self.idle_load, seconds_max=self.settle_max_s, tick=lambda: None
        )

    def _status(self) -> InstanceStatus:
        status = self.target.refreshed()
        if status is None:
            raise StartError("The instance ended while the bench ran.")
        return status


def _restarts(status: InstanceStatus) -> int:
    return sum(process.restarts for process in status.processes)
