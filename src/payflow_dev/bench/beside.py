"""What payments in files, and payments of one debtor, are compared with: single ones of many debtors, in the same run.

A step of them comes before the others, and one after: machines differ, and so do minutes of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean
from typing import Final

from payflow_dev.bench.modes import Plan
from payflow_dev.bench.options import Options
from payflow_dev.bench.population import Customer, Payment, make_payments
from payflow_dev.bench.results import Step
from payflow_dev.bench.stats import Ratio, ratio_to_neighbours

SINGLE: Final = "single"
# Beside files, whose own connections are files: the busiest of the usual steps.
_CONNECTIONS: Final = 256


def needs_singles(options: Options) -> bool:
    """Whether the run is about something that is to be held against single payments of many debtors."""
    is_other = options.is_bulk or options.is_hot
    return is_other and options.mode == "steps" and not options.history and not options.is_address_only


def singles_plan(options: Options, *, customers: Sequence[Customer], count: int) -> tuple[int, Plan]:
    """The connections and the plan of such a step."""
    stream: list[Payment] = make_payments(
        customers=list(customers),
        count=count,
        seed=options.seed,
        is_hot=False,
        inter_bank_share=options.inter_bank_share,
        payers=range(options.customers),
    )
    connections = _CONNECTIONS if options.is_bulk else max(options.connections)
    return connections, Plan(group=SINGLE, loader=options.loader, stream=stream)


def times_the_singles(steps: Sequence[Step]) -> Ratio | None:
    """The rate in multiples of that of the single payments around it; None where there were none around.

    At their number of connections; files, which are not counted in connections, at the best of theirs. `low` and `high`
    are over the faster and the slower step of single payments.
    """
    singles = [step for step in steps if step.group == SINGLE]
    others = [step for step in steps if step.group != SINGLE]
    if not singles or not others:
        return None
    others = [step for step in others if step.connections == singles[0].connections] or others
    best = max(
        mean(step.payments_per_s for step in others if step.connections == count)
        for count in {step.connections for step in others}
    )
    return ratio_to_neighbours(payments_per_s=best, neighbours_tps=[step.payments_per_s for step in singles])
