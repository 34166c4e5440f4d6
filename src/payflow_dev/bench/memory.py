"""Hundreds of thousands of payments, and whether any process keeps something of each."""

from __future__ import annotations

from typing import Final

import msgspec

from payflow_dev.bench.goals import Goal
from payflow_dev.bench.growth import TOLERANCE_KB, MemorySample, ProcessGrowth, growth_of
from payflow_dev.bench.modes import Bench, Plan

PAYMENTS: Final = 500_000
WARM_UP_PAYMENTS: Final = 50_000
# A page taken into use looks like a leak where few payments follow.
JUDGED_FROM: Final = 100_000


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Acknowledged payments and the memory of each process on the way: `samples` begin after `warm_up_payments`."""

    payments: int
    warm_up_payments: int
    connections: int
    samples: list[MemorySample]
    growth: list[ProcessGrowth]
    goals: list[Goal]


def warm_up_for(payments: int) -> int:
    """How many payments fill caches and pools before memory is compared: 50,000, or a tenth of a short run."""
    return min(WARM_UP_PAYMENTS, payments // 10)


def play_memory(bench: Bench, *, payments: int, connections: int, seconds: float) -> Memory:
    """Drive so many payments, in turns of `seconds` with a look at the memory after each.

    Ends early when a turn gets nothing acknowledged.
    """
    warm_up, done, samples = warm_up_for(payments), 0, list[MemorySample]()
    while done < payments:
        bench.say(f"load, {done:,} of {payments:,} payments", seconds)
        # Our own loader waits for the last answers: a turn that cut them off would leave work behind for the next.
        load = bench.load(connections, Plan(seconds=seconds, loader="own")).load
        if not load.acknowledged_in_all:
            break
        done += load.acknowledged_in_all
        if done >= warm_up:
            samples.append(
                MemorySample(payments=done, payments_per_s=round(load.payments_per_s, 1), pss_kb=bench.memory())
            )
    return memory_of(payments=done, warm_up_payments=warm_up, connections=connections, samples=samples)


def memory_of(*, payments: int, warm_up_payments: int, connections: int, samples: list[MemorySample]) -> Memory:
    """The growth of each process, and the goal: none of them grows."""
    growth = growth_of(samples)
    fastest = growth[0] if growth else None
    measured = f"at most {fastest.kb_per_100000:,.0f} KB ({fastest.name})" if fastest else "too few samples"
    if payments < JUDGED_FROM:
        measured += f", fewer than {JUDGED_FROM:,} payments say nothing"
    goal = Goal(
        name="memory growth of every process",
        wanted=f"<= {TOLERANCE_KB:.0f} KB per 100,000 payments",
        measured=measured,
        is_met=payments >= JUDGED_FROM and bool(growth) and all(each.is_steady for each in growth),
    )
    return Memory(
        payments=payments,
        warm_up_payments=warm_up_payments,
        connections=connections,
        samples=samples,
        growth=growth,
        goals=[goal],
    )
