"""The bench's further modes: what they conclude from figures, and in which order they ask for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec
import pytest

from payflow_dev.bench.drive import Driven
from payflow_dev.bench.growth import MemorySample, growth_of
from payflow_dev.bench.job import Load
from payflow_dev.bench.memory import memory_of, play_memory, warm_up_for
from payflow_dev.bench.modes import Plan
from payflow_dev.bench.overload import CONNECTIONS, FACTOR, play_overload, rise_of
from payflow_dev.bench.population import make_customers
from payflow_dev.bench.results import Step
from payflow_dev.bench.stats import NO_LATENCIES, Latencies
from payflow_dev.bench.steps import ticker
from payflow_dev.bench.velocity import (
    BUSY,
    GROUP_CUSTOMERS,
    NEW,
    Pair,
    customers_needed,
    groups_of,
    play_velocity,
    velocity_of,
)
from payflow_dev.bench.wire import Outcome


def a_latency(ms: float) -> Latencies:
    return Latencies(p50_ms=ms / 2, p95_ms=ms, p99_ms=ms, max_ms=ms)


def a_step(
    *,
    connections: int = 256,
    per_s: float = 1000.0,
    refused: int = 0,
    refused_ms: float = 0.0,
    recovered_after_s: float | None = None,
    group: str = "",
) -> Step:
    return Step(
        connections=connections,
        seconds=10.0,
        payments_per_s=per_s,
        acknowledged=round(per_s * 10),
        pending=0,
        latencies=a_latency(12.0),
        errors={},
        neighbours_tps=[],
        ratio=None,
        cpu=None,
        cpu_us_per_payment=0.0,
        loader_us_per_request=0.0,
        restarts=0,
        group=group,
        refused=refused,
        refused_latencies=a_latency(refused_ms) if refused else None,
        sent=40_000 if refused else 0,
        recovered_after_s=recovered_after_s,
    )


@dataclass
class FakeBench:
    """Stands for a run: notes what it was asked for, and answers each step by `answer`."""

    answer: Callable[[int, Plan], Step]
    acknowledged: int = 1000
    asked: list[tuple[int, Plan]] = field(default_factory=list)
    looks: int = 0

    def step(self, connections: int, plan: Plan) -> Step:
        self.asked.append((connections, plan))
        for _ in range(9):
            if plan.on_every is not None:
                plan.on_every()
        return self.answer(connections, plan)

    def load(self, connections: int, plan: Plan) -> Driven:
        self.asked.append((connections, plan))
        load = Load(
            outcomes=bytes([Outcome.SUCCESS]) * self.acknowledged,
            acknowledged=self.acknowledged,
            pending=0,
            window_s=1.0,
            latencies=NO_LATENCIES,
            errors={},
            cpu_s=0.1,
        )
        return Driven(load, 0.1)

    def memory(self) -> dict[str, int]:
        self.looks += 1
        return {"confirm": 30_000, "gateway-1": 40_000 + self.looks}

    heap = memory

    def say(self, what: str, seconds: float) -> None:
        """Nobody looks on."""


def samples(*, kb: Callable[[int], int], count: int = 12) -> list[MemorySample]:
    return [
        MemorySample(
            payments=50_000 * (place + 1), payments_per_s=1000.0, heap_kb={"confirm": kb(place), "otp": 20_000}
        )
        for place in range(count)
    ]


def test_a_process_that_keeps_eight_bytes_a_payment_is_found() -> None:
    growth = growth_of(samples(kb=lambda place: 30_000 + place * 50_000 * 8 // 1024))

    assert [each.name for each in growth] == ["confirm", "otp"]
    assert growth[0].kb_per_100000 == pytest.approx(781, rel=0.01)
    assert [each.is_steady for each in growth] == [False, True]


def test_one_sample_that_stands_out_is_no_growth() -> None:
    (growth, _) = growth_of(samples(kb=lambda place: 90_000 if place == 11 else 30_000))

    assert (growth.kb_per_100000, growth.is_steady) == (0.0, True)


def test_memory_that_is_given_back_is_steady() -> None:
    growth = growth_of(samples(kb=lambda place: 30_000 - place * 100))

    assert all(each.is_steady for each in growth)


def test_few_samples_tell_nothing_and_meet_no_goal() -> None:
    few = samples(kb=lambda _: 30_000, count=5)

    assert growth_of(few) == []
    (goal,) = memory_of(payments=1, warm_up_payments=0, connections=64, samples=few).goals
    assert goal.measured.startswith("too few samples")
    assert not goal.is_met


def server_samples(*, child_kb: Callable[[int], int]) -> list[MemorySample]:
    """A server with a child that stays, and two that come and go."""
    found = []
    for place, sample in enumerate(samples(kb=lambda _: 30_000)):
        children = {"postgres": 5_000, "postgres/11": child_kb(place)}
        children |= {"postgres/12": 9_000} if place < 5 else {"postgres/13": 30_000}
        found.append(msgspec.structs.replace(sample, heap_kb=sample.heap_kb | children))
    return found


def test_a_connection_more_is_no_growth_of_the_server() -> None:
    growth = {each.name: each for each in growth_of(server_samples(child_kb=lambda _: 7_000))}

    assert set(growth) == {"confirm", "otp", "postgres"}
    assert (growth["postgres"].first_kb, growth["postgres"].kb_per_100000) == (12_000, 0.0)


def test_a_child_that_stays_and_grows_is_found() -> None:
    (fastest, *_) = growth_of(server_samples(child_kb=lambda place: 7_000 + place * 400))

    assert (fastest.name, fastest.is_steady) == ("postgres", False)


def test_a_process_that_was_not_there_all_the_time_is_not_judged() -> None:
    found = [*samples(kb=lambda _: 30_000), MemorySample(payments=10**6, payments_per_s=1.0, heap_kb={"otp": 20_000})]

    assert [each.name for each in growth_of(found)] == ["otp"]


def test_memory_is_looked_at_after_every_turn_once_it_is_warm() -> None:
    bench = FakeBench(answer=lambda *_: a_step(), acknowledged=10_000)

    memory = play_memory(bench, payments=200_000, connections=64, seconds=2.0)

    assert (memory.payments, memory.warm_up_payments) == (200_000, 200_000)
    assert len(bench.asked) == 40
    assert {plan.loader for _, plan in bench.asked} == {"own"}
    assert [sample.payments for sample in memory.samples] == list(range(10_000, 400_001, 10_000))
    assert memory.goals[0].is_met


def test_a_short_run_is_no_proof() -> None:
    steady = samples(kb=lambda _: 30_000)

    (short,) = memory_of(payments=3_000, warm_up_payments=300, connections=64, samples=steady).goals
    (long,) = memory_of(payments=600_000, warm_up_payments=50_000, connections=64, samples=steady).goals

    assert (short.is_met, long.is_met) == (False, True)
    assert short.measured.endswith("fewer than 100,000 payments say nothing")


def test_a_run_that_gets_nothing_acknowledged_ends() -> None:
    memory = play_memory(FakeBench(answer=lambda *_: a_step(), acknowledged=0), payments=100, connections=1, seconds=1)

    assert (memory.payments, memory.samples) == (0, [])


@pytest.mark.parametrize(("payments", "warm_up"), [(500_000, 400_000), (1_000_000, 400_000), (3_000, 3_000), (5, 5)])
def test_the_warm_up_of_a_short_run_is_as_long_as_the_run(payments: int, warm_up: int) -> None:
    assert warm_up_for(payments) == warm_up


def overloaded(**changes: float) -> tuple[FakeBench, list[bool]]:
    told: dict[str, float] = {"goodput": 900.0, "refused_ms": 40.0, "recovered": 2.0, "after": 1000.0} | changes

    def answer(connections: int, plan: Plan) -> Step:
        if plan.group == "single":
            return a_step(connections=1, per_s=90.0)
        if plan.group == "again":
            return a_step(connections=connections, per_s=told["after"])
        return a_step(
            connections=connections,
            per_s=told["goodput"],
            refused=9_000,
            refused_ms=told["refused_ms"],
            recovered_after_s=told["recovered"] if told["recovered"] >= 0 else None,
            group=plan.group,
        )

    bench = FakeBench(answer=answer)
    _, overload = play_overload(bench, [a_step(per_s=800.0), a_step(per_s=1000.0)])
    return bench, [goal.is_met for goal in overload.goals]


def test_the_overload_is_four_times_the_best_step_and_begins_with_single_payments() -> None:
    bench, met = overloaded()

    (single, first), (connections, second), (again, third) = bench.asked
    assert (single, first.group, first.loader) == (1, "single", None)
    assert (connections, second.loader, second.offered_per_s) == (CONNECTIONS, "open", FACTOR * 1000.0)
    assert second.normal_ms == 12.0
    assert (again, third.group, third.loader) == (256, "again", None)
    assert met == [True, True, True, True]


@pytest.mark.parametrize(
    ("changes", "met"),
    [
        ({"goodput": 799.0}, [False, True, True, True]),
        ({"goodput": 799.0, "after": 990.0}, [True, True, True, True]),
        ({"goodput": 801.0, "after": 1010.0}, [False, True, True, True]),
        ({"refused_ms": 101.0}, [True, False, True, True]),
        ({"recovered": 10.5}, [True, True, False, True]),
        ({"recovered": -1.0}, [True, True, False, True]),
    ],
)
def test_each_goal_of_the_overload_is_judged_by_itself(changes: dict[str, float], met: list[bool]) -> None:
    assert overloaded(**changes)[1] == met


def test_memory_in_the_overload_may_rise_at_first_and_not_for_ever() -> None:
    def totals(values: list[int]) -> list[dict[str, int]]:
        return [{"confirm": value, "otp": 100} for value in values]

    at_first = rise_of(totals([100, 900, 900, 900, 900, 900, 900, 900, 900]))
    for_ever = rise_of(totals([100, 200, 300, 400, 500, 600, 700, 800, 900]))

    assert at_first == 0.0
    assert for_ever is not None
    assert for_ever > 0.4
    assert rise_of(totals([1, 2, 3])) is None


def test_each_pair_has_customers_of_its_own_without_a_payment_and_the_order_changes() -> None:
    customers = make_customers(count=20 + customers_needed(2), run_id="abc123", seed=1)
    bench = FakeBench(answer=lambda count, plan: a_step(connections=count, per_s=950.0 if plan.group == BUSY else 1000))

    steps, velocity = play_velocity(bench, customers=customers, connections=[16, 64], payments=100_000, seed=1)

    busy, new = groups_of(customers, pairs=2)
    payers = [{payment.customer for payment in plan.stream or ()} for _, plan in bench.asked]
    assert payers[::2] == payers[1::2]
    assert [plan.seconds for _, plan in bench.asked] == [1.0, None] * 4
    payers = payers[1::2]
    assert [plan.group for _, plan in bench.asked[1::2]] == [BUSY, NEW, NEW, BUSY]
    assert payers == [set(busy), set(new[0]), set(new[1]), set(busy)]
    assert [len(each) for each in (busy, *new)] == [GROUP_CUSTOMERS] * 3
    assert min(busy) == 20
    assert len(steps) == 4
    assert (velocity.ratio, velocity.goals[0].is_met) == (0.95, True)


@pytest.mark.parametrize(("busy_per_s", "is_met"), [(900.0, True), (899.0, False), (1101.0, False)])
def test_the_rates_of_both_groups_may_differ_by_a_tenth(busy_per_s: float, is_met: bool) -> None:
    velocity = velocity_of(
        payments_before=100_000, pairs=[Pair(connections=64, busy_per_s=busy_per_s, new_per_s=1000.0)]
    )

    assert velocity.goals[0].is_met is is_met


def test_a_plan_is_called_now_and_then_and_the_display_each_time() -> None:
    notes: list[str] = []
    calls: list[int] = []

    tick = ticker(Plan(every_s=3600.0, on_every=lambda: calls.append(1)), notes.append)
    tick("a")
    tick("b")

    assert (notes, calls) == (["a", "b"], [1])
