"""Files, and one debtor, are held against single payments of many debtors in the same run."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from payflow_dev.bench.beside import SINGLE, needs_singles, singles_plan, times_the_singles
from payflow_dev.bench.kept import Kept, connections_of, steps_at
from payflow_dev.bench.options import Options
from payflow_dev.bench.planned import planned_s
from payflow_dev.bench.population import FILE_PAYMENTS, in_whole_files, make_customers, make_payments
from payflow_dev.bench.results import Step
from payflow_dev.bench.stats import Ratio
from payflow_dev.bench.targets import targets
from tests.unit.test_bench_plots import sample, with_ratio


def a_step(rate: float, *, connections: int = 4, group: str = "") -> Step:
    step = sample().report.steps[0]
    return msgspec.structs.replace(step, payments_per_s=rate, connections=connections, group=group)


@pytest.mark.parametrize(
    ("asked", "needs"),
    [
        ({"is_bulk": True, "connections": (4,)}, True),
        ({"is_hot": True, "connections": (64,)}, True),
        ({"connections": (64,)}, False),
        ({"is_hot": True, "memory_payments": 10, "connections": (64,)}, False),
        ({"is_hot": True, "history": (1_000,), "connections": (64,)}, False),
        ({"is_hot": True, "url": "http://127.0.0.1:1", "connections": (64,)}, False),
    ],
)
def test_only_files_and_one_debtor_are_held_against_single_payments(asked: dict[str, Any], needs: bool) -> None:
    options = Options(**asked)
    plain = msgspec.structs.replace(options, is_bulk=False, is_hot=False)

    assert needs_singles(options) is needs
    assert (planned_s(options) >= planned_s(plain) + 2 * options.seconds) is needs


def test_single_payments_beside_one_debtor_are_of_many_and_over_as_many_connections() -> None:
    customers = make_customers(count=20, run_id="abc", seed=1)

    connections, plan = singles_plan(
        Options(is_hot=True, connections=(16, 64), customers=20), customers=customers, count=500
    )

    assert (connections, plan.group) == (64, SINGLE)
    assert plan.stream is not None
    assert len({payment.debtor for payment in plan.stream}) > 20


@pytest.mark.parametrize("sent_before", [0, 1, FILE_PAYMENTS - 1, FILE_PAYMENTS, 3 * FILE_PAYMENTS + 17])
def test_files_are_one_payers_each_whatever_was_sent_before_them(sent_before: int) -> None:
    customers = make_customers(count=50, run_id="abc", seed=1)
    stream = make_payments(
        customers=customers,
        count=4 * FILE_PAYMENTS,
        seed=1,
        is_hot=False,
        inter_bank_share=0.0,
        in_a_row=FILE_PAYMENTS,
    )

    moved = in_whole_files(stream, first=sent_before)

    numbers = range(sent_before, sent_before + len(stream))
    payers = [moved[number % len(moved)].customer for number in numbers]
    for start in range(0, len(payers), FILE_PAYMENTS):
        assert len(set(payers[start : start + FILE_PAYMENTS])) == 1


def test_the_best_step_is_told_in_multiples_of_the_single_payments_around_it() -> None:
    around = [a_step(800.0, connections=256, group=SINGLE), a_step(1200.0, connections=256, group=SINGLE)]

    files = times_the_singles([around[0], a_step(1000.0, connections=1), a_step(2400.0), around[1]])

    assert files == Ratio(mean=2.4, low=2.0, high=3.0)
    assert times_the_singles([a_step(2500.0)]) is None
    assert times_the_singles(around) is None


def test_one_debtor_is_held_against_single_payments_over_as_many_connections() -> None:
    around = [a_step(1000.0, connections=256, group=SINGLE)] * 2

    hot = times_the_singles([around[0], a_step(1500.0, connections=64), a_step(900.0, connections=256), around[1]])

    assert hot is not None
    assert hot.mean == 0.9


def test_a_run_with_single_payments_of_its_own_is_compared_with_no_other_run() -> None:
    files = with_ratio(sample(), "files", 1.5, loader="bulk")
    steps = [a_step(1000.0, connections=256, group=SINGLE), a_step(3100.0)]
    files = Kept("files", msgspec.structs.replace(files.report, steps=steps))

    goals = {goal.name: goal for goal in targets([with_ratio(sample(), "steps", 0.5), files])}

    assert (goals["payments in files"].measured, goals["payments in files"].is_met) == ("3.1 x", True)
    assert {goal.name: goal for goal in targets([files])}["payments in files"].is_met
    assert connections_of(files.report) == [4]
    assert steps_at(files.report, 256) == []
