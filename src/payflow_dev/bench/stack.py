"""The same payments on four instances in turns: the event log in PostgreSQL or in Kafka, with and without telemetry."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean
from typing import Final, NamedTuple

from payflow_dev.bench.delays import EVENTS_LOADS, IDLE_S_MIN, Delay, delay_goals, measure_delays
from payflow_dev.bench.display import Display
from payflow_dev.bench.goals import Goal
from payflow_dev.bench.machine import machine_facts
from payflow_dev.bench.modes import Plan
from payflow_dev.bench.money import MoneyReport
from payflow_dev.bench.options import Options
from payflow_dev.bench.report import Report, Stack, Variation
from payflow_dev.bench.results import Step
from payflow_dev.bench.run import Run
from payflow_dev.bench.target import Target, own_target
from payflow_dev.otlp.receiver import Receiver

POSTGRES: Final = "postgresql"
KAFKA: Final = "kafka"
TELEMETRY: Final = "telemetry"
BOTH: Final = "kafka, telemetry"
RATE_WITH_KAFKA_MIN: Final = 0.9
RATE_WITH_TELEMETRY_MIN: Final = 0.95
# Each instance is started and gets its customers.
_START_PLAN_S: Final = 30.0
_SETTLE_PLAN_S: Final = 3.0
_PROCESS_ENDS_S: Final = 5.0


class _Member(NamedTuple):
    """One of the four: its name, its instance, and the run on it."""

    name: str
    target: Target
    run: Run


def play_stack(options: Options, display: Display) -> Report:
    """Pay on all four in rounds, then look how long events take with each log alone; everybody's money is checked."""
    step_s = options.seconds + _SETTLE_PLAN_S
    beside_s = 4 * (_START_PLAN_S + (len(options.connections) + 1) * step_s)
    display.plan(beside_s + 2 * (_START_PLAN_S + (EVENTS_LOADS + 1) * step_s + max(0, IDLE_S_MIN - options.seconds)))
    with ExitStack() as stack:
        members = _start(stack, options, display)
        steps = _take_turns(members, options)
        money = {member.name: member.run.check_money() for member in members}
        facts = machine_facts(data_dir=_data_dir(members[0].target))
    variations = [
        variation_of(name, steps, is_money_right=found is not None and found.is_right) for name, found in money.items()
    ]
    further, delays, alone = _measure_alone(options, display)
    steps += further
    wrong = [report for report in (*money.values(), *alone) if report is not None and not report.is_right]
    return Report(
        machine=facts,
        settings=members[0].run.settings(),
        idle_load=None,
        pgbench_choice=[],
        pgbench=[],
        steps=steps,
        money=wrong[0] if wrong else money[POSTGRES],
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        stack=Stack(variations=variations, delays=delays, goals=[*goals_of(variations), *delay_goals(delays)]),
    )


def _measure_alone(options: Options, display: Display) -> tuple[list[Step], list[Delay], list[MoneyReport | None]]:
    """How long events take through each log, with nothing beside it on the machine."""
    steps, delays, money = list[Step](), list[Delay](), list[MoneyReport | None]()
    for name, flags in ((POSTGRES, ()), (KAFKA, ("--kafka",))):
        with _member(name, flags, {}, options, display) as member:
            best = member.run.step(max(options.connections), Plan(group=f"{name}, alone"))
            further, found = measure_delays(
                member.run, member.target, log=name, best_per_s=best.payments_per_s, seconds=options.seconds
            )
            steps += [best, *further]
            delays += found
            money.append(member.run.check_money())
    return steps, delays, money


def _start(stack: ExitStack, options: Options, display: Display) -> list[_Member]:
    """The four instances, with their customers made and warmed up. They stay up all the time: what an idle one takes is
    the same for all."""
    telemetry = {"PAYFLOW_OTLP_ENDPOINT": stack.enter_context(_collector())}
    return [
        stack.enter_context(_member(name, flags, settings, options, display))
        for name, flags, settings in (
            (POSTGRES, (), {}),
            (KAFKA, ("--kafka",), {}),
            (TELEMETRY, (), telemetry),
            (BOTH, ("--kafka",), telemetry),
        )
    ]


@contextmanager
def _member(
    name: str, flags: Sequence[str], settings: dict[str, str], options: Options, display: Display
) -> Iterator[_Member]:
    """One instance, ready to be paid on."""
    display.phase(f"starting an instance: {name}", _START_PLAN_S)
    with own_target(*flags, keeps=False, **settings) as target:
        run = Run(options, target, display)
        run.prepare()
        run.warm_up()
        yield _Member(name, target, run)


def _take_turns(members: Sequence[_Member], options: Options) -> list[Step]:
    """A round for each number of connections; every other one backwards, so that none is always the first."""
    steps = []
    for place, connections in enumerate(options.connections):
        for member in members if place % 2 == 0 else members[::-1]:
            steps.append(member.run.step(connections, Plan(group=member.name)))
    return steps


def variation_of(name: str, steps: Sequence[Step], *, is_money_right: bool) -> Variation:
    """Mean figures of the steps of this name, and how its rate compares with the plain one's of the same round."""
    own, plain = ([step for step in steps if step.group == group] for group in (name, POSTGRES))
    ratios = [
        step.payments_per_s / beside.payments_per_s
        for step, beside in zip(own, plain, strict=True)
        if beside.payments_per_s
    ]
    plain_per_s = mean(step.payments_per_s for step in plain)
    per_s = mean(step.payments_per_s for step in own)
    return Variation(
        name=name,
        payments_per_s=round(per_s, 1),
        cpu_us_per_payment=round(mean(step.cpu_us_per_payment for step in own), 1),
        ratio=round(per_s / plain_per_s, 3) if plain_per_s else 0.0,
        low=round(min(ratios, default=0.0), 3),
        high=round(max(ratios, default=0.0), 3),
        is_money_right=is_money_right,
    )


def goals_of(variations: Sequence[Variation]) -> list[Goal]:
    """What Kafka and telemetry may cost."""
    wanted = {KAFKA: RATE_WITH_KAFKA_MIN, TELEMETRY: RATE_WITH_TELEMETRY_MIN}
    goals = [
        Goal(
            name=f"rate with {each.name}",
            wanted=f">= {wanted[each.name]:.0%} of the rate without",
            measured=f"{each.ratio:.1%} ({each.low:.1%} to {each.high:.1%})",
            is_met=each.ratio >= wanted[each.name],
        )
        for each in variations
        if each.name in wanted
    ]
    wrong = [each.name for each in variations if not each.is_money_right]
    money = f"not with {', '.join(wrong)}" if wrong else "with all four"
    return [*goals, Goal(name="the money is right", wanted="with all four", measured=money, is_met=not wrong)]


@contextmanager
def _collector() -> Iterator[str]:
    """The address of a receiver of telemetry in a process of its own."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_receive, args=(theirs,), daemon=True)
    process.start()
    try:
        yield str(ours.recv())
    finally:
        ours.send("end")
        process.join(_PROCESS_ENDS_S)


def _receive(pipe: Connection) -> None:
    with Receiver() as receiver:
        pipe.send(receiver.url)
        pipe.recv()


def _data_dir(target: Target) -> Path | None:
    return target.status.instance.data_dir if target.status else None
