"""Hundreds of thousands of payments, and whether any process keeps something of each."""

from __future__ import annotations

from typing import Final

import msgspec

from payflow_dev.bench.goals import Goal
from payflow_dev.bench.growth import TOLERANCE_KB, MemorySample, ProcessGrowth, growth_of
from payflow_dev.bench.modes import Bench, Plan

PAYMENTS: Final = 500_000
# Caches and pools are full by then, the heap has found its shape, and connections have been made anew several times.
WARM_UP_PAYMENTS: Final = 400_000
# A page taken into use looks like a leak where few payments follow.
JUDGED_FROM: Final = 100_000


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """Acknowledged payments and the memory of each process on the way.

    `payments` are those after `warm_up_payments`. `samples` begin with the first payment; growth is judged by those
    after the warm-up.
    """

    payments: int
    warm_up_payments: int
    connections: int
    samples: list[MemorySample]
    growth: list[ProcessGrowth]
    goals: list[Goal]


def warm_up_for(payments: int) -> int:
    """How many payments fill caches and pools before memory is compared: 400,000, or as many as are compared."""
    return min(WARM_UP_PAYMENTS, payments)


def play_memory(bench: Bench, *, payments: int, connections: int, seconds: float) -> Memory:
    """Drive so many payments after the warm-up, in turns of `seconds` with a look at the memory after each.

    Ends early when a turn gets nothing acknowledged.
    """
    warm_up = warm_up_for(payments)
    done, samples = 0, list[MemorySample]()
    while done < warm_up + payments:
        what = "warm-up" if done < warm_up else f"{done - warm_up:,} of {payments:,} payments"
        bench.say(f"load, {what}", seconds)
        # Our own loader waits for the last answers: a turn that cut them off would leave work behind for the next.
        load = bench.load(connections, Plan(seconds=seconds, loader="own")).load
        if not load.acknowledged_in_all:
            break
        done += load.acknowledged_in_all
        samples.append(MemorySample(payments=done, payments_per_s=round(load.payments_per_s, 1), heap_kb=bench.heap()))
    return memory_of(
        payments=max(done - warm_up, 0), warm_up_payments=warm_up, connections=connections, samples=samples
    )


def memory_of(*, payments: int, warm_up_payments: int, connections: int, samples: list[MemorySample]) -> Memory:
    """The growth of each process, and the goal: none of them grows."""
    growth = growth_of([sample for sample in samples if sample.payments >= warm_up_payments])
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
