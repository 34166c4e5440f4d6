"""Customers with a long day behind them beside customers with none: does a payment cost the same?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import mean
from typing import Final

import asyncpg
import msgspec

from payflow_dev.bench.goals import Goal
from payflow_dev.bench.modes import Bench, Plan
from payflow_dev.bench.population import CURRENCY, Customer, Payment, make_payments
from payflow_dev.bench.results import Step

PAYMENTS: Final = 100_000
GROUP_CUSTOMERS: Final = 10
DIFFERENCE_MAX: Final = 0.1
BUSY: Final = "many payments"
NEW: Final = "none"
_PAYMENTS_IN_STREAM: Final = 5_000
# What every process remembers of a customer after the first payment is no matter of how many there were.
_WARM_UP_S: Final = 1.0
_ROWS_PER_STATEMENT: Final = 50_000
_TIMEOUT_S: Final = 300.0

# Within the window of 24 hours until the run is over, evenly. As risk itself would have stored them: from the sixth
# payment on the rule VELOCITY hits, which makes 25 points and asks for nothing. They are risk's rows alone: of all that
# a payment asks for, only the count of the last 24 hours looks at what its customer has paid before.
_ASSESS: Final = """
INSERT INTO risk.assessment (payment_id, customer_id, assessed_at, amount_minor, currency, debtor, creditor, level,
                             points, sanctions_points, needs_otp, is_possible_match, review_id, rules_hit,
                             rules_version, list_version, is_kyc_verified, payments_in_window, is_counted)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7'
        || substr(replace(gen_random_uuid()::text, '-', ''), 14))::uuid,
       $1, at, 100 + place % 10000, $2, $3, $4, CASE WHEN is_hit THEN 'MEDIUM' ELSE 'LOW' END,
       CASE WHEN is_hit THEN 25 ELSE 0 END, 0, false, false, NULL,
       CASE WHEN is_hit THEN ARRAY['VELOCITY'] ELSE '{}'::text[] END,
       (SELECT coalesce(max(version), 1) FROM risk.rule_set), 'bench', true, least(place, 6), true
  FROM generate_series($5::integer, $6::integer) AS place
 CROSS JOIN LATERAL (SELECT now() - interval '23 hours' * (1 - place::float8 / $7::integer)) AS t (at)
 CROSS JOIN LATERAL (SELECT place > 5) AS u (is_hit)
"""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two steps side by side: payments a second of customers with many payments and of customers with none."""

    connections: int
    busy_per_s: float
    new_per_s: float


class Velocity(msgspec.Struct, frozen=True, kw_only=True):
    """`ratio`: the busy customers' mean rate over the others'; `low` and `high` are those of single pairs."""

    payments_before: int
    customers: int
    pairs: list[Pair]
    ratio: float
    low: float
    high: float
    goals: list[Goal]


def groups_of(customers: Sequence[Customer], *, pairs: int) -> tuple[range, list[range]]:
    """The places of the busy customers, and of those without a payment for each pair: the last of all customers."""
    first = len(customers) - customers_needed(pairs)
    busy = range(first, first + GROUP_CUSTOMERS)
    new = [range(begin, begin + GROUP_CUSTOMERS) for begin in range(busy.stop, len(customers), GROUP_CUSTOMERS)]
    return busy, new


def customers_needed(pairs: int) -> int:
    """How many customers the two groups take: each pair has ones of its own without a payment."""
    return (1 + pairs) * GROUP_CUSTOMERS


async def give_past(*, url: str, customers: Sequence[Customer], payments: int, tick: Callable[[str], None]) -> None:
    """Give each customer so many assessed payments in the last 23 hours, as the database's owner."""
    connection = await asyncpg.connect(url, server_settings={"synchronous_commit": "off"})
    try:
        for number, customer in enumerate(customers):
            debtor, creditor = customer.accounts[0], customers[number - 1].accounts[0]
            for first in range(1, payments + 1, _ROWS_PER_STATEMENT):
                last = min(payments, first + _ROWS_PER_STATEMENT - 1)
                values = (customer.customer_id, CURRENCY, debtor, creditor, first, last, payments)
                await connection.execute(_ASSESS, *values, timeout=_TIMEOUT_S)
            tick(f"{number + 1} of {len(customers)} customers")
        # What writing so much leaves behind is none of the payments' business.
        for statement in ("VACUUM (ANALYZE) risk.assessment", "CHECKPOINT"):
            await connection.execute(statement, timeout=_TIMEOUT_S)
    finally:
        await connection.close()


def play_velocity(
    bench: Bench, *, customers: list[Customer], connections: Sequence[int], payments: int, seed: int
) -> tuple[list[Step], Velocity]:
    """For each number of connections a step of either group, after a second of the same: the other begins each time."""
    busy, new = groups_of(customers, pairs=len(connections))
    steps, pairs = list[Step](), list[Pair]()
    for place, count in enumerate(connections):
        plans = [
            Plan(group=BUSY, stream=_stream(customers, busy, seed=seed)),
            Plan(group=NEW, stream=_stream(customers, new[place], seed=seed)),
        ]
        order = plans if place % 2 == 0 else plans[::-1]
        pair = dict[str, Step]()
        for plan in order:
            bench.load(count, replace(plan, seconds=_WARM_UP_S))
            pair[plan.group] = bench.step(count, plan)
        steps += pair.values()
        busy_per_s, new_per_s = pair[BUSY].payments_per_s, pair[NEW].payments_per_s
        pairs.append(Pair(connections=count, busy_per_s=busy_per_s, new_per_s=new_per_s))
    return steps, velocity_of(payments_before=payments, pairs=pairs)


def _stream(customers: list[Customer], payers: range, *, seed: int) -> list[Payment]:
    return make_payments(
        customers=customers, count=_PAYMENTS_IN_STREAM, seed=seed, is_hot=False, inter_bank_share=0.0, payers=payers
    )


def velocity_of(*, payments_before: int, pairs: list[Pair]) -> Velocity:
    """The ratio of the rates and the goal."""
    ratios = [pair.busy_per_s / pair.new_per_s for pair in pairs if pair.new_per_s]
    low, high = min(ratios, default=0.0), max(ratios, default=0.0)
    new_per_s = mean(pair.new_per_s for pair in pairs)
    ratio = mean(pair.busy_per_s for pair in pairs) / new_per_s if new_per_s else 0.0
    return Velocity(
        payments_before=payments_before,
        customers=GROUP_CUSTOMERS,
        pairs=pairs,
        ratio=round(ratio, 3),
        low=round(low, 3),
        high=round(high, 3),
        goals=[
            Goal(
                name=f"rate with {payments_before:,} payments in 24 h",
                wanted=f"within {DIFFERENCE_MAX:.0%} of the rate with none",
                measured=f"{ratio - 1:+.1%} ({low - 1:+.1%} to {high - 1:+.1%})",
                is_met=abs(ratio - 1) <= DIFFERENCE_MAX,
            )
        ],
    )
