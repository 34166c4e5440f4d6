"""A step's figures, put together from what the loader and the meter say."""

from __future__ import annotations

import time
from collections.abc import Callable

from payflow_dev.bench.drive import Driven
from payflow_dev.bench.meter import Measured
from payflow_dev.bench.modes import Plan
from payflow_dev.bench.results import Step


def step_of(connections: int, driven: Driven, measured: Measured | None) -> Step:
    """The figures of one step; `measured` is None where only an address is known."""
    load, figures = driven.load, measured.cpu if measured else None
    cpu_s = sum(figures.by_process.values()) + figures.afterwards_s if figures else 0.0
    return Step(
        connections=connections,
        seconds=load.window_s,
        payments_per_s=load.payments_per_s,
        acknowledged=load.acknowledged,
        pending=load.pending,
        latencies=load.latencies,
        errors=load.errors,
        neighbours_tps=[],
        ratio=None,
        cpu=figures,
        cpu_us_per_payment=_micros(cpu_s, load.acknowledged_in_all),
        loader_us_per_request=_micros(load.cpu_s, len(load.outcomes)),
        restarts=measured.restarts if measured else 0,
        refused=load.refused,
        refused_latencies=load.refused_latencies if load.refused else None,
        sent=load.sent,
        unsent=load.unsent,
        recovered_after_s=load.recovered_after_s,
        database=measured.database if measured else None,
    )


def _micros(seconds: float, count: int) -> float:
    return round(seconds / count * 1e6, 1) if count else 0.0


def ticker(plan: Plan, tick: Callable[[str], None]) -> Callable[[str], None]:
    """The display's tick, and now and then the plan's own look at the instance."""
    if plan.on_every is None:
        return tick
    on_every, next_at = plan.on_every, 0.0

    def both(note: str) -> None:
        nonlocal next_at
        tick(note)
        if time.monotonic() >= next_at:
            on_every()
            next_at = time.monotonic() + plan.every_s

    return both
