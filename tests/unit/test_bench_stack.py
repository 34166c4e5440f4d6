"""What `bench --stack` concludes: quantiles from histograms, rates beside each other, and the goals."""

from __future__ import annotations

import math
from pathlib import Path

import msgspec
import pytest

from payflow.run.errors import StartError
from payflow_dev.bench.delays import HALF, IDLE, Delay, delay_goals, quantile
from payflow_dev.bench.options import Options, check, default_connections
from payflow_dev.bench.stack import KAFKA, POSTGRES, TELEMETRY, goals_of, variation_of
from tests.unit.test_bench_modes import a_step


def a_delay(*, load: str = IDLE, consumer: str = "audit", p99_ms: float = 20.0) -> Delay:
    return Delay(log=KAFKA, load=load, payments_per_s=8.0, consumer=consumer, events=100, p50_ms=5.0, p99_ms=p99_ms)


def test_a_quantile_lies_within_its_bucket() -> None:
    cumulative = {0.01: 50.0, 0.02: 90.0, 0.05: 100.0, math.inf: 100.0}

    assert quantile(cumulative, 0.5) == pytest.approx(0.01)
    assert quantile(cumulative, 0.7) == pytest.approx(0.015)
    assert quantile(cumulative, 0.99) == pytest.approx(0.047)


def test_a_quantile_above_the_last_bound_is_told_as_that_bound_and_none_as_zero() -> None:
    assert quantile({0.01: 1.0, 60.0: 2.0, math.inf: 10.0}, 0.99) == 60.0
    assert quantile({}, 0.99) == 0.0


def test_a_way_to_run_is_compared_round_by_round_with_the_plain_one() -> None:
    rates = {POSTGRES: [1000.0, 2000.0], KAFKA: [950.0, 1700.0]}
    steps = [a_step(per_s=rate, group=name) for name, row in rates.items() for rate in row]

    found = variation_of(KAFKA, steps, is_money_right=True)

    assert (found.payments_per_s, found.ratio, found.low, found.high) == (1325.0, 0.883, 0.85, 0.95)


def test_kafka_may_cost_a_tenth_and_telemetry_a_twentieth_and_nobody_a_payment() -> None:
    steps = [a_step(per_s=rate, group=name) for name, rate in ((POSTGRES, 1000.0), (KAFKA, 900.0), (TELEMETRY, 940.0))]
    variations = [variation_of(name, steps, is_money_right=name != KAFKA) for name in (POSTGRES, KAFKA, TELEMETRY)]

    met = {goal.name: goal.is_met for goal in goals_of(variations)}

    assert met == {"rate with kafka": True, "rate with telemetry": False, "the money is right": False}


def test_the_slowest_consumer_decides_and_little_load_is_judged_more_strictly() -> None:
    delays = [
        a_delay(p99_ms=49.0),
        a_delay(p99_ms=51.0, consumer="notification"),
        a_delay(load=HALF, p99_ms=51.0),
    ]

    idle, half = delay_goals(delays)

    assert (idle.is_met, half.is_met) == (False, True)
    assert "notification" in idle.measured


def test_a_round_is_repeated_and_only_instances_of_its_own_are_compared() -> None:
    asked = Options(is_stack=True)
    assert asked.mode == "stack"
    assert not asked.compares
    check(asked)
    rounds = default_connections(is_bulk=False, is_overload=False, memory=None, velocity=None, is_stack=True)
    assert len(rounds.split(",")) > 1

    for wrong in ({"is_overload": True}, {"keeps_instance": True}, {"data_dir": Path("/tmp/x")}, {"is_bulk": True}):
        with pytest.raises(StartError):
            check(msgspec.structs.replace(asked, **wrong))
