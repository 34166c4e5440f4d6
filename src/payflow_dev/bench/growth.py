"""Does memory grow with the payments made? A slope that single samples cannot bend. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Final

import msgspec

# Three bytes a payment: a list that keeps one pointer for each would take eight, and four in either of two gateways.
TOLERANCE_KB: Final = 300.0
_PER_PAYMENTS: Final = 100_000
SAMPLES_MIN: Final = 6


class MemorySample(msgspec.Struct, frozen=True, kw_only=True):
    """Memory of each process (written by itself, KiB) after so many acknowledged payments, and the rate up to it.

    A server's children are "postgres/PID".
    """

    payments: int
    payments_per_s: float
    heap_kb: dict[str, int]


class ProcessGrowth(msgspec.Struct, frozen=True, kw_only=True):
    """One process: its memory at both ends, and its growth in KiB per 100,000 payments."""

    name: str
    first_kb: float
    last_kb: float
    kb_per_100000: float

    @property
    def is_steady(self) -> bool:
        """Whether it grows by less than any list that remembers every payment would."""
        return self.kb_per_100000 <= TOLERANCE_KB


def growth_of(samples: Sequence[MemorySample]) -> list[ProcessGrowth]:
    """The growth of each process that is in every sample: the median of the last third over that of the first third.

    A server is told as one, with those of its children that are in every sample: one more connection is a process more
    and no growth, and who has ended keeps nothing. The fastest growing first; empty where there are too few samples to
    tell.
    """
    if len(samples) < SAMPLES_MIN:
        return []
    third = len(samples) // 3
    first, last = samples[:third], samples[-third:]
    payments = median(each.payments for each in last) - median(each.payments for each in first)
    if payments <= 0:
        return []
    found = []
    stayed = set.intersection(*(set(each.heap_kb) for each in samples))
    for name in sorted({process.partition("/")[0] for process in stayed}):
        of_it = [process for process in stayed if process.partition("/")[0] == name]
        before, after = (
            median(sum(each.heap_kb[process] for process in of_it) for each in part) for part in (first, last)
        )
        slope = (after - before) / payments * _PER_PAYMENTS
        found.append(ProcessGrowth(name=name, first_kb=before, last_kb=after, kb_per_100000=round(slope, 1)))
    return sorted(found, key=lambda each: -each.kb_per_100000)
