"""Results that were kept: `--json` files, read again and told apart by what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from payflow_dev.bench.beside import SINGLE
from payflow_dev.bench.report import Report
from payflow_dev.bench.results import Step


@dataclass(frozen=True, slots=True)
class Kept:
    """A run and the file that it is kept in; `name` is the file's, without its ending."""

    name: str
    report: Report


def read_kept(paths: Iterable[Path]) -> tuple[list[Kept], list[Path]]:
    """The runs in these files, the oldest first, and the files that hold something else."""
    found, others = list[Kept](), list[Path]()
    for path in paths:
        try:
            found.append(Kept(path.stem, msgspec.json.decode(path.read_bytes(), type=Report)))
        except (msgspec.DecodeError, msgspec.ValidationError):
            others.append(path)
    # A run from before the date was kept comes first, by its name.
    return sorted(found, key=lambda each: (each.report.made_at, each.name)), others


def over_connections(kept: Sequence[Kept]) -> list[Kept]:
    """The runs over several numbers of connections and nothing else: many accounts, a short ledger, no files."""
    return [each for each in kept if _is_plain(each.report) and len(connections_of(each.report)) > 1]


def of_one_debtor(kept: Sequence[Kept]) -> list[Kept]:
    """The runs in which one debtor account paid everything."""
    return [each for each in kept if each.report.settings.mode == "steps" and each.report.settings.is_hot]


def of_files(kept: Sequence[Kept]) -> list[Kept]:
    """The runs of payments in files."""
    return [each for each in kept if each.report.settings.mode == "steps" and each.report.settings.loader == "bulk"]


def over_history(kept: Sequence[Kept]) -> list[Kept]:
    """The runs over ledgers of several lengths."""
    return [each for each in kept if len({step.history_entries for step in each.report.steps}) > 1]


def _is_plain(report: Report) -> bool:
    settings = report.settings
    is_short = not any(step.history_entries for step in report.steps)
    return settings.mode == "steps" and is_short and not settings.is_hot and settings.loader in ("own", "wrk")


def connections_of(report: Report) -> list[int]:
    """The numbers of connections that were measured, ascending; without single payments beside other ones."""
    return sorted({step.connections for step in report.steps if step.group != SINGLE})


def steps_at(report: Report, connections: int) -> list[Step]:
    """The steps of one number of connections: it may have been measured several times."""
    return [step for step in report.steps if step.connections == connections and step.group != SINGLE]


def cpu_us_by_process(steps: Sequence[Step]) -> dict[str, float]:
    """CPU microseconds per payment of each process over these steps; `afterwards` is what was done when they were over.

    Empty where no CPU was measured.
    """
    measured = [(step, step.cpu) for step in steps if step.cpu is not None and step.cpu_us_per_payment]
    spent: dict[str, float] = {}
    payments = 0.0
    for step, cpu in measured:
        total_s = sum(cpu.by_process.values()) + cpu.afterwards_s
        payments += total_s / step.cpu_us_per_payment * 1e6
        for name, seconds in (*cpu.by_process.items(), ("afterwards", cpu.afterwards_s)):
            spent[name] = spent.get(name, 0.0) + seconds
    return {name: seconds / payments * 1e6 for name, seconds in spent.items()} if payments else {}


def taken_by_others(report: Report) -> float:
    """The share of the machine's CPU that other programs and its host took while the steps ran."""
    measured = [(step, step.cpu) for step in report.steps if step.cpu is not None]
    seconds = sum(step.seconds for step, _ in measured) * report.machine.cores
    # The meter also runs while the last answers are awaited: no more than all of it.
    return min(1.0, sum(cpu.others_s + cpu.stolen_s for _, cpu in measured) / seconds) if seconds else 0.0
