"""Four times what the instance can do: what still gets through, how the rest is told, and how soon it is over."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median
from typing import Final

import msgspec

from payflow_dev.bench.goals import Goal
from payflow_dev.bench.growth import SAMPLES_MIN
from payflow_dev.bench.modes import Bench, Plan
from payflow_dev.bench.results import Step
from payflow_dev.bench.stats import NO_LATENCIES, Latencies

FACTOR: Final = 4.0
# Two gateways work on 512 requests each. So many, and thousands that can be refused at the same moment.
CONNECTIONS: Final = 4096
SINGLE_S: Final = 3.0
_SAMPLE_EVERY_S: Final = 1.0

GOODPUT_MIN: Final = 0.8
REFUSED_MS_MAX: Final = 100.0
RECOVERED_S_MAX: Final = 10.0
# While the load goes on, memory may still be taken into use; from the middle on it must not go up any more.
MEMORY_RISE_MAX: Final = 0.05


class MemoryInOverload(msgspec.Struct, frozen=True, kw_only=True):
    """A process's memory before, at most while it was overloaded, and when single payments were usual again (KiB)."""

    name: str
    before_kb: int
    peak_kb: int
    after_kb: int


class Overload(msgspec.Struct, frozen=True, kw_only=True):
    """`offered_per_s` went out by the clock, `wanted_per_s` should have; `unsent` found every connection taken.

    `goodput_share` is acknowledged payments a second over the mean of `best_per_s` and `best_after_per_s`: the best
    step of the same run, and the same once more afterwards, since a shared machine changes from one to the next.
    `refused` counts 429 and 503. `normal_ms` is the p99 of single payments before, `recovered_after_s` the time from
    the end of the load until single payments took no longer, five in a row; None: not while they were watched.
    `memory_rise` compares the last third of the time with the middle one, all processes together.
    """

    best_per_s: float
    wanted_per_s: float
    offered_per_s: float
    unsent: int
    goodput_per_s: float
    goodput_share: float
    refused: int
    refused_latencies: Latencies
    normal_ms: float
    recovered_after_s: float | None
    memory: list[MemoryInOverload]
    memory_rise: float | None
    goals: list[Goal]
    best_after_per_s: float | None = None


def play_overload(bench: Bench, best: Sequence[Step]) -> tuple[list[Step], Overload]:
    """Single payments, the overload, and the best once more: steps and figures. `best`: to be measured against."""
    most = max(best, key=lambda step: step.payments_per_s)
    best_per_s = most.payments_per_s
    single = bench.step(1, Plan(group="single", seconds=SINGLE_S))
    normal_ms = single.latencies.p99_ms
    before = bench.memory()
    samples: list[dict[str, int]] = []
    plan = Plan(
        group="overload",
        loader="open",
        offered_per_s=FACTOR * best_per_s,
        normal_ms=normal_ms,
        every_s=_SAMPLE_EVERY_S,
        on_every=lambda: samples.append(bench.memory()),
    )
    step = bench.step(CONNECTIONS, plan)
    memory = _memory(before, samples, bench.memory())
    again = bench.step(most.connections, Plan(group="again"))
    figures = figures_of(
        best_per_s=best_per_s,
        best_after_per_s=again.payments_per_s,
        normal_ms=normal_ms,
        step=step,
        memory=memory,
        rise=rise_of(samples),
    )
    return [single, step, again], figures


def _memory(before: dict[str, int], samples: Sequence[dict[str, int]], after: dict[str, int]) -> list[MemoryInOverload]:
    return [
        MemoryInOverload(
            name=name,
            before_kb=kb,
            peak_kb=max([kb, *(sample.get(name, 0) for sample in samples)]),
            after_kb=after.get(name, 0),
        )
        for name, kb in before.items()
    ]


def rise_of(samples: Sequence[dict[str, int]]) -> float | None:
    """By how much all memory rose from the middle third of the samples to the last; None where there are too few."""
    totals = [sum(sample.values()) for sample in samples]
    if len(totals) < SAMPLES_MIN:
        return None
    third = len(totals) // 3
    return median(totals[-third:]) / median(totals[third : 2 * third]) - 1


def figures_of(
    *,
    best_per_s: float,
    best_after_per_s: float,
    normal_ms: float,
    step: Step,
    memory: list[MemoryInOverload],
    rise: float | None,
) -> Overload:
    """Put the figures together and compare them with the goals."""
    best = mean((best_per_s, best_after_per_s))
    share = step.payments_per_s / best if best else 0.0
    latencies = step.refused_latencies or NO_LATENCIES
    return Overload(
        best_per_s=best_per_s,
        best_after_per_s=best_after_per_s,
        wanted_per_s=FACTOR * best_per_s,
        offered_per_s=step.sent / step.seconds,
        unsent=step.unsent,
        goodput_per_s=step.payments_per_s,
        goodput_share=round(share, 3),
        refused=step.refused,
        refused_latencies=latencies,
        normal_ms=normal_ms,
        recovered_after_s=step.recovered_after_s,
        memory=memory,
        memory_rise=rise,
        goals=_goals(share, (best_per_s, best_after_per_s), step, latencies, rise),
    )


def _goals(share: float, best: tuple[float, float], step: Step, refused: Latencies, rise: float | None) -> list[Goal]:
    recovered = step.recovered_after_s
    return [
        Goal(
            name="goodput under 4 x overload",
            wanted=f">= {GOODPUT_MIN:.0%} of the best",
            measured=f"{share:.0%} ({step.payments_per_s:,.0f}; {best[0]:,.0f} before, {best[1]:,.0f} after)",
            is_met=share >= GOODPUT_MIN,
        ),
        Goal(
            name="refused answers, p99",
            wanted=f"<= {REFUSED_MS_MAX:.0f} ms",
            measured=f"{refused.p99_ms:.0f} ms (p50 {refused.p50_ms:.0f} ms)" if step.refused else "nothing refused",
            is_met=step.refused > 0 and refused.p99_ms <= REFUSED_MS_MAX,
        ),
        Goal(
            name="single payments as usual again",
            wanted=f"<= {RECOVERED_S_MAX:.0f} s after the end",
            measured="not while watched" if recovered is None else f"{recovered:.1f} s",
            is_met=recovered is not None and recovered <= RECOVERED_S_MAX,
        ),
        Goal(
            name="memory is bounded",
            wanted=f"last third <= {MEMORY_RISE_MAX:.0%} above the middle third",
            measured="too few samples" if rise is None else f"{rise:+.1%}",
            is_met=rise is not None and rise <= MEMORY_RISE_MAX,
        ),
    ]
