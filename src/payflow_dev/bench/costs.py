"""What a payment costs, out of a kept run: the numbers that `payflow capacity` computes with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from payflow.run.capacity import Costs
from payflow.run.instance import repository_root
from payflow_dev.bench.kept import Kept, connections_of, cpu_us_by_process, steps_at
from payflow_dev.bench.report import Report

MEASURED: Final = repository_root() / "src" / "payflow" / "run" / "capacity" / "measured.json"
EVENT_LOG: Final = "event_log.batch"
# Of the run's own machine, not of a system that is planned.
_NOT_OURS: Final = frozenset({"supervisor", "other-bank", "afterwards"})
_GATEWAYS: Final = ("gateway-1", "gateway-2")


def costs_of(runs: Sequence[Kept]) -> Costs | None:
    """The costs at the busiest step of the newest run that has everything; None where there is none.

    Work that went on after a step (events, autovacuum) is put on top of PostgreSQL, which does most of it.
    """
    for run in reversed(runs):
        report = run.report
        steps = steps_at(report, connections_of(report)[-1])
        cpu_us, wal = cpu_us_by_process(steps), [step.database for step in steps if step.database is not None]
        tables = report.tables
        if not cpu_us or not wal or tables is None or not any(table.bytes for table in tables.tables):
            continue
        cpu_us["postgres"] += cpu_us["afterwards"]
        cpu_us["gateway"] = sum(cpu_us.pop(name) for name in _GATEWAYS)
        return Costs(
            measured_on=_machine(report),
            measured_by=f"bench/results/{run.name}.json",
            payments_per_s=round(sum(step.payments_per_s for step in steps) / len(steps), 1),
            cpu_us={name: round(us, 1) for name, us in sorted(cpu_us.items()) if name not in _NOT_OURS},
            wal_bytes=round(sum(one.wal_bytes for one in wal) / sum(one.payments for one in wal)),
            disk_bytes=round(sum(table.bytes for table in tables.tables) / tables.payments),
            rows=round(sum(table.written for table in tables.tables) / tables.payments, 1),
            event_bytes=round(sum(one.bytes for one in tables.tables if one.name == EVENT_LOG) / tables.payments),
        )
    return None


def _machine(report: Report) -> str:
    return f"{report.machine.cores} cores {report.machine.cpu}"


def as_json(costs: Costs) -> bytes:
    """As it is kept: readable, the same for the same costs."""
    return msgspec.json.format(msgspec.json.encode(costs), indent=2) + b"\n"
