"""Many runs, each with the next seed, on as many processors as there are, and what they came to together."""

from __future__ import annotations

import gc
import secrets
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from time import perf_counter

from tests.simulation.run import PAYMENTS, Result, simulate

# Seeds of different processes never meet.
SEEDS_EACH = 1_000_000


def fresh_seed() -> int:
    """A seed that nobody has chosen; it is printed, so that the run can be repeated."""
    return secrets.randbits(32)


@dataclass(slots=True)
class Tally:
    """What several runs came to. `failed_seed`: the first that broke a rule."""

    runs: int = 0
    payments: int = 0
    cpu_s: float = 0.0
    simulated_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    failed_seed: int | None = None

    def add(self, result: Result) -> None:
        """Count a run in."""
        one = Tally(1, result.payments, result.cpu_s, result.simulated_s, result.faults, result.ends)
        one.failed_seed = result.seed if result.broken else None
        self.merge(one)

    def merge(self, other: Tally) -> None:
        """Count in what others came to."""
        self.runs += other.runs
        self.payments += other.payments
        self.cpu_s += other.cpu_s
        self.simulated_s += other.simulated_s
        self.faults += other.faults
        self.ends += other.ends
        if self.failed_seed is None:
            self.failed_seed = other.failed_seed


def run_seeds(first_seed: int, payments: int, seconds: float) -> Tally:
    """At least one run, and then as many as begin within `seconds`, or until a rule is broken."""
    tally, begun = Tally(), perf_counter()
    while tally.runs == 0 or (tally.failed_seed is None and perf_counter() - begun < seconds):
        tally.add(simulate(first_seed + tally.runs, payments=payments))
        gc.collect()
    return tally


class Session:
    """Runs seeds until the time is up or a rule is broken; a seed that broke one is run again for its story."""

    def __init__(self, *, first_seed: int, payments: int = PAYMENTS) -> None:
        self._first_seed, self._payments_each = first_seed, payments
        self.tally = Tally()
        self.real_s = 0.0
        self.failed: Result | None = None

    def run(self, *, seconds: float, processes: int) -> None:
        """Run seeds in several processes at once."""
        begun = perf_counter()
        firsts = [self._first_seed + number * SEEDS_EACH for number in range(processes)]
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            ends = [pool.submit(run_seeds, first, self._payments_each, seconds) for first in firsts]
            for end in ends:
                self.tally.merge(end.result())
        self.real_s = perf_counter() - begun
        if self.tally.failed_seed is not None:
            self.failed = simulate(self.tally.failed_seed, payments=self._payments_each)

    def add(self, result: Result) -> None:
        """Count in a run that was made here."""
        self.tally.add(result)
        self.real_s += result.real_s
        if result.broken and self.failed is None:
            self.failed = result

    def report(self) -> str:
        """What was simulated, and for a failure how to see it again, and the last that happened to the payment."""
        tally = self.tally
        lines = [
            f"from seed {self._first_seed} on, {tally.runs} runs: {tally.payments} payments,"
            f" {tally.payments / self.real_s:.0f} a second, {tally.payments / tally.cpu_s:.0f} per second of processor;"
            f" {tally.simulated_s:.0f} s simulated in {self.real_s:.1f} s",
            f"ends: {_counts(tally.ends)}",
            f"faults: {_counts(tally.faults)}",
        ]
        if self.failed is not None:
            lines += ["", *self._failure(self.failed)]
        return "\n".join(lines)

    def _failure(self, result: Result) -> list[str]:
        size = "" if self._payments_each == PAYMENTS else f" --payments {self._payments_each}"
        return [
            f"seed {result.seed} breaks {len(result.broken)} rules:",
            *(f"  {broken}" for broken in result.broken[:10]),
            f"replay it: .venv/bin/python -m tests.simulation --seed {result.seed}{size}",
            "the last that happened to the first such payment, in simulated seconds:",
            result.story(),
        ]


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counter.most_common()) or "none"
