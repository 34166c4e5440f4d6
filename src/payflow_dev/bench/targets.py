"""What the rate is to be, and whether the kept runs reach it.

Runs are compared as multiples of the pgbench that took turns with each: their machines were not equally quiet. Files
and one debtor are held against single payments of many debtors in the same run, where it made some.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import mean

import msgspec

from payflow_dev.bench.beside import times_the_singles
from payflow_dev.bench.goals import Goal
from payflow_dev.bench.kept import (
    Kept,
    connections_of,
    of_files,
    of_one_debtor,
    over_connections,
    over_history,
    steps_at,
)
from payflow_dev.bench.report import Report
from payflow_dev.bench.stats import Ratio

# Where the best rate is looked for.
_BUSY = (64, 256)


def targets(kept: Sequence[Kept]) -> list[Goal]:
    """The goals that these runs (the oldest first) tell about; of each kind the newest counts."""
    steps, hot, files, histories = over_connections(kept), of_one_debtor(kept), of_files(kept), over_history(kept)
    goals: list[Goal] = []
    if steps:
        newest = steps[-1].report
        goals += [_proven(goal, newest) for goal in (*_of_the_rate(newest), *_of_times(newest))]
    many = steps[-1].report if steps else None
    if hot and (goal := _of_one_debtor(hot[-1].report, many=many)):
        goals.append(_proven(goal, hot[-1].report))
    if files and (goal := _of_files(files[-1].report, single=many)):
        goals.append(_proven(goal, files[-1].report))
    if histories:
        goals.append(_proven(_of_history(histories[-1].report), histories[-1].report))
    return goals


def _proven(goal: Goal, report: Report) -> Goal:
    """The goal, not met where the run proves nothing: its money was not right."""
    if report.money is None or report.money.is_right:
        return goal
    return msgspec.structs.replace(goal, measured=f"{goal.measured}, by a run whose money was not right", is_met=False)


def _of_the_rate(report: Report) -> Iterator[Goal]:
    ratios = {count: ratio for count in connections_of(report) if count in _BUSY and (ratio := _ratio(report, count))}
    if ratios:
        best = max(ratios, key=lambda count: ratios[count])
        yield Goal(
            name="payments a second, at the best of 64 and 256 connections",
            wanted=">= 1.0 x pgbench",
            measured=f"{ratios[best]:.2f} x, at {best}",
            is_met=ratios[best] >= 1.0,
        )
    rates = [mean(step.payments_per_s for step in steps_at(report, count)) for count in connections_of(report)]
    yield Goal(
        name="the rate over more connections",
        wanted="never falls",
        measured=", ".join(f"{rate:,.0f}" for rate in rates) + " a second",
        is_met=rates == sorted(rates),
    )
    errors = sum(step.error_count for step in report.steps)
    yield Goal(name="errors", wanted="none", measured=f"{errors}", is_met=errors == 0)


def _of_times(report: Report) -> Iterator[Goal]:
    for name, connections, wanted_ms in (("p50_ms", 1, 10.0), ("p99_ms", 1, 30.0), ("p99_ms", 64, 150.0)):
        steps = steps_at(report, connections)
        if steps:
            measured = mean(getattr(step.latencies, name) for step in steps)
            who = "connection" if connections == 1 else "connections"
            yield Goal(
                name=f"{name.removesuffix('_ms')} with {connections} {who}",
                wanted=f"<= {wanted_ms:g} ms",
                measured=f"{measured:.1f} ms",
                is_met=measured <= wanted_ms,
            )


def _of_one_debtor(report: Report, *, many: Report | None) -> Goal | None:
    times = times_the_singles(report.steps)
    if times is None and many is not None:
        counts = [count for count in connections_of(report) if _ratio(report, count) and _ratio(many, count)]
        share = max((_ratio(report, count) / _ratio(many, count) for count in counts), default=0.0)
        times = Ratio(mean=share, low=share, high=share)
    if times is None:
        return None
    return Goal(
        name="one debtor account for everything",
        wanted=">= 0.8 x the rate over many",
        measured=_in_words(times, decimals=2),
        is_met=times.mean >= 0.8,
    )


def _of_files(report: Report, *, single: Report | None) -> Goal | None:
    times = times_the_singles(report.steps)
    if times is None and single is not None:
        best = max(_ratio(single, count) for count in connections_of(single))
        share = max(_ratio(report, count) for count in connections_of(report)) / best if best else 0.0
        times = Ratio(mean=share, low=share, high=share)
    if times is None:
        return None
    return Goal(
        name="payments in files",
        wanted=">= 3 x the rate of single ones",
        measured=_in_words(times, decimals=1),
        is_met=times.mean >= 3.0,
    )


def _in_words(times: Ratio, *, decimals: int) -> str:
    """A multiple with its spread, where that can be seen."""
    mean_, low, high = (f"{value:.{decimals}f}" for value in (times.mean, times.low, times.high))
    return f"{mean_} x" if low == high else f"{mean_} x ({low} to {high})"


def _of_history(report: Report) -> Goal:
    lengths = sorted({step.history_entries for step in report.steps})
    short, long = (
        mean(step.ratio.mean if step.ratio else 0.0 for step in report.steps if step.history_entries == length)
        for length in (lengths[0], lengths[-1])
    )
    change = long / short - 1 if short else -1.0
    return Goal(
        name=f"the rate with {lengths[-1]:,} entries in the ledger",
        wanted=f"at most 10% below that with {lengths[0]:,}",
        measured=f"{change:+.1%}",
        is_met=change >= -0.1,
    )


def _ratio(report: Report, connections: int) -> float:
    """The multiple of pgbench at so many connections; 0 where it was not measured."""
    ratios = [step.ratio.mean for step in steps_at(report, connections) if step.ratio]
    return mean(ratios) if ratios else 0.0
