"""What a run came to: figures, coverage by edge and position, and whether it was good."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from payflow.run.invariants.check import Finding, check_database
from payflow.run.invariants.stuck import find_stuck
from payflow_dev.bench.machine import machine_facts
from payflow_dev.chaos.faults import PAYING_WITHIN_S
from payflow_dev.chaos.history import Fault
from payflow_dev.chaos.judge import Verdict, judge
from payflow_dev.chaos.limits import Limit, limits_of, percentile_95
from payflow_dev.chaos.model import ModelVerdict, hold_against_model
from payflow_dev.chaos.plan import POSTGRES


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. Seconds are from the kill to the process's health, and to the next payment made.

    `promised`: where the plan was to strike; `coverage`: how often each fault struck, by edge and "NAME POSITION";
    `never_struck`: edges and positions that were promised and not hit; `never_back`: kills after which the process did
    not come back, or no payment was made; `not_run`: faults that this machine cannot do and nobody has excused;
    `model`: whether every payment, as it was recorded, is a behaviour of the model in spec/.
    """

    machine: Any
    seed: int
    seconds: float
    kills: int
    faults: dict[str, int]
    coverage: dict[str, dict[str, int]]
    never_struck: list[str]
    not_run: dict[str, str]
    back_p95_s: float
    paying_p95_s: float
    postgres_back_s: list[float]
    quiet_after_s: float
    verdict: Verdict
    broken_rules: list[Finding]
    stuck: int
    model: ModelVerdict
    promised: list[str] = []
    never_back: list[str] = []

    @property
    def limits(self) -> list[Limit]:
        """How soon all was well again, against how soon it must be."""
        return limits_of(
            services_killed=self.kills - len(self.postgres_back_s),
            back_p95_s=self.back_p95_s,
            paying_p95_s=self.paying_p95_s,
            quiet_after_s=self.quiet_after_s,
            postgres_s=self.postgres_back_s,
        )

    @property
    def not_covered(self) -> list[str]:
        """Where the plan was to strike and nothing did; and whether the coverage accounts for every fault."""
        missing = [place for place in self.promised if place not in self.coverage]
        struck = sum(sum(counts.values()) for counts in self.coverage.values())
        faults = sum(self.faults.values()) - len(self.never_struck)
        return missing + ([f"{faults} faults struck, {struck} of them are in the coverage"] if struck != faults else [])

    @property
    def problems(self) -> list[str]:
        """All that makes it no good run, in words; what was lost or doubled is told by the verdict."""
        return [
            *(f"{limit.words}" for limit in self.limits if not limit.is_met),
            *(f"never struck: {place}" for place in self.not_covered),
            *(f"never back: {fault}" for fault in self.never_back),
            *(f"not run: {name}: {reason}; excuse it with --without {name}" for name, reason in self.not_run.items()),
            *([f"{self.stuck} things are stuck"] if self.stuck else []),
            *([] if self.model.is_good else [self.model.words]),
        ]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or broken, every promised fault struck, all was well again soon enough, and
        nothing is stuck."""
        return self.verdict.is_good and not self.broken_rules and not self.problems


async def summarize(
    *,
    faults: Sequence[Fault],
    promised: Sequence[str],
    kills: int,
    history: Path,
    owner_url: str,
    data_dir: Path,
    seed: int,
    seconds: float,
    quiet_after_s: float,
    not_run: dict[str, str],
    is_held_against_model: bool,
) -> Summary:
    """Judge the history, check every rule on the database, and count."""
    killed = [fault for fault in faults if fault.is_kill and fault.is_hit]
    services = [fault for fault in killed if fault.victim != POSTGRES]
    findings = await check_database(owner_url, quiet_within=timedelta(seconds=1))
    return Summary(
        machine=machine_facts(data_dir=data_dir),
        seed=seed,
        seconds=round(seconds, 1),
        kills=kills,
        faults=dict(Counter(fault.name for fault in faults)),
        coverage=coverage_of(faults),
        never_struck=[f"{fault.name} {fault.edge} {fault.position}" for fault in faults if not fault.is_hit],
        not_run=not_run,
        back_p95_s=percentile_95([_seconds(fault.back_after_s) for fault in services]),
        paying_p95_s=percentile_95([_seconds(fault.paying_after_s) for fault in services]),
        postgres_back_s=[round(_seconds(fault.paying_after_s), 2) for fault in killed if fault.victim == POSTGRES],
        promised=list(promised),
        never_back=[f"{fault.victim} ({fault.name} {fault.place})" for fault in killed if not _is_back(fault)],
        quiet_after_s=round(quiet_after_s, 1),
        verdict=judge(history),
        broken_rules=[finding for finding in findings if not finding.is_kept],
        stuck=len(await find_stuck(owner_url, overdue_after=timedelta(seconds=1))),
        model=await hold_against_model(
            database_url=owner_url, path=history.with_suffix(".payments.jsonl"), is_wanted=is_held_against_model
        ),
    )


def coverage_of(faults: Sequence[Fault]) -> dict[str, dict[str, int]]:
    """How often what struck where: {edge: {"kill-callee after_answer": 2}}; whole processes by their name."""
    coverage: dict[str, Counter[str]] = {}
    for fault in faults:
        if fault.is_hit:
            what = f"{fault.name} {fault.position}" if fault.position else fault.name
            coverage.setdefault(fault.place, Counter())[what] += 1
    return {edge: dict(counts) for edge, counts in sorted(coverage.items())}


def _is_back(fault: Fault) -> bool:
    return fault.back_after_s is not None and fault.paying_after_s is not None


def _seconds(value: float | None) -> float:
    """None is not in time: it was waited for so long at least."""
    return PAYING_WITHIN_S if value is None else value
