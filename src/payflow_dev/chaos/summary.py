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
from payflow_dev.chaos.model import ModelVerdict, hold_against_model


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a run came to. Seconds are from the kill to the process's health, and to the next payment made.

    `coverage`: how often each fault struck, by edge and "NAME POSITION"; `never_struck`: edges and positions that were
    promised and not hit; `not_run`: faults that this machine cannot do and nobody has excused; `model`: whether every
    payment, as it was recorded, is a behaviour of the model in spec/.
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

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or broken, every promised fault struck, and nothing is stuck."""
        is_kept = self.verdict.is_good and not self.broken_rules and self.model.is_good
        return is_kept and self.stuck == 0 and not self.not_run


async def summarize(
    *,
    faults: Sequence[Fault],
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
    killed = [fault for fault in faults if fault.name.startswith("kill")]
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
        back_p95_s=_p95([fault.back_after_s for fault in killed if fault.is_hit]),
        paying_p95_s=_p95([fault.paying_after_s for fault in killed]),
        postgres_back_s=[
            round(fault.paying_after_s or PAYING_WITHIN_S, 2) for fault in killed if fault.victim == "postgres"
        ],
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
            where = fault.edge or fault.victim or "everybody"
            what = f"{fault.name} {fault.position}" if fault.position else fault.name
            coverage.setdefault(where, Counter())[what] += 1
    return {edge: dict(counts) for edge, counts in sorted(coverage.items())}


def _p95(values: Sequence[float | None]) -> float:
    known = sorted(PAYING_WITHIN_S if value is None else value for value in values)
    return round(known[min(len(known) - 1, int(len(known) * 0.95))], 2) if known else 0.0
