"""The figures of a report: percentiles, and the ratio of a load step to the pgbench runs beside it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Final

import msgspec


class Latencies(msgspec.Struct, frozen=True, kw_only=True):
    """How long acknowledged payments took, in milliseconds; zeros where there were none."""

    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float


NO_LATENCIES: Final = Latencies(p50_ms=0.0, p95_ms=0.0, p99_ms=0.0, max_ms=0.0)


class Ratio(msgspec.Struct, frozen=True, kw_only=True):
    """Payments per second over pgbench transactions per second.

    `mean` is taken to the mean of the neighbours, `low` to the faster and `high` to the slower one of them.
    """

    mean: float
    low: float
    high: float


def percentile(ordered: Sequence[int], percent: float) -> int:
    """The nearest-rank percentile of ascending values: the least one that `percent` per cent do not exceed.

    0 where there is no value.
    """
    if not ordered:
        return 0
    return ordered[max(1, ceil(len(ordered) * percent / 100)) - 1]


def latencies_of(nanoseconds: Sequence[int]) -> Latencies:
    """The percentiles of durations in any order."""
    ordered = sorted(nanoseconds)
    p50, p95, p99, most = (percentile(ordered, percent) / 1e6 for percent in (50, 95, 99, 100))
    return Latencies(p50_ms=p50, p95_ms=p95, p99_ms=p99, max_ms=most)


def ratio_to_neighbours(*, payments_per_s: float, neighbours_tps: Sequence[float]) -> Ratio | None:
    """Compare a step with the pgbench runs before and after it; None where there is none to compare with."""
    runs = [tps for tps in neighbours_tps if tps > 0]
    if not runs:
        return None
    return Ratio(
        mean=payments_per_s / (sum(runs) / len(runs)), low=payments_per_s / max(runs), high=payments_per_s / min(runs)
    )
