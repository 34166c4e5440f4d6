"""How long the parts of a run take on two cores, for the bar only."""

from __future__ import annotations

from typing import Final

from payflow_dev.bench.beside import needs_singles
from payflow_dev.bench.options import Options
from payflow_dev.bench.pgbench import CLIENTS

START_S: Final = 10.0
RECORDS_S: Final = 12.0
INITIALISE_S: Final = 6.0
SETTLE_S: Final = 2.0
WARM_UP_S: Final = 2.0
PAST_S: Final = 3e-4
_CHOICE_S: Final = 5.0
_FILL_S: Final = 50e-6


def planned_s(options: Options) -> float:
    """A whole run."""
    lengths = max(1, len(options.history))
    steps = len(options.connections) + (2 if needs_singles(options) else 0)
    steps *= 2 if options.mode == "velocity" else lengths
    seconds = sum(map(fill_s, options.history))
    warm_ups = 2 if needs_singles(options) else 1
    seconds += RECORDS_S + warm_ups * WARM_UP_S + steps * (options.seconds + SETTLE_S)
    if options.starts_own:
        seconds += START_S
    if options.compares:
        seconds += INITIALISE_S + len(CLIENTS) * choice_s(options) + (steps + lengths) * options.seconds
    return seconds


def fill_s(entries: int) -> float:
    """Filling the ledger up to so many entries."""
    return entries * _FILL_S


def choice_s(options: Options) -> float:
    """One pgbench run that is to find the best number of clients."""
    return min(options.seconds, _CHOICE_S)
