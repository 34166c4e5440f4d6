"""Is the judge worth anything? Each planted bug must be found by a short fault run, and nothing where there is none."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import msgspec

import payflow
from payflow_dev.chaos.bugs import BUGS, Bug, plant
from payflow_dev.chaos.run import Options, run_chaos
from payflow_dev.chaos.summary import Summary

CONTROL: Final = "control"
# A constraint that is missing is seen without any fault: that alone is no proof that its absence is found.
_TOO_EASY: Final = "the constraints that settle races are there"
_QUIET_WITHIN_S: Final = 25.0


class Tested(msgspec.Struct, frozen=True, kw_only=True):
    """What a run with one bug came to. `objections`: the judge's rules and `payflow verify`'s that were broken."""

    bug: str
    words: str
    is_as_expected: bool
    objections: list[str]
    examples: list[str]
    never_struck: list[str]
    payments: int
    kills: int
    seconds: float


def find_bugs(names: Sequence[str], *, seed: int, tell: Callable[[str], None] = print) -> list[Tested]:
    """Run each bug in turn, on an instance of its own each."""
    return [_test(name, BUGS[name], seed=seed, tell=tell) for name in names]


def _test(name: str, bug: Bug, *, seed: int, tell: Callable[[str], None]) -> Tested:
    tell(f"--- {name}: {bug.words}")
    began_at = time.monotonic()
    source = Path(payflow.__file__).resolve().parents[1]
    folder = Path(tempfile.mkdtemp(prefix="payflow-bug-"))
    try:
        copy = folder / "src"
        shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        plant(bug, source=source, target=copy)
        options = Options(
            seed=seed,
            customers=32,
            script=bug.faults,
            source=copy,
            history=folder / "history.jsonl",
            quiet_within_s=_QUIET_WITHIN_S,
            # The judge is what is tested here; the model's own test is that planted mistakes are found (make spec).
            is_held_against_model=False,
            tell=tell,
        )
        summary = run_chaos(options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    tested = _tested(name, bug, summary, seconds=time.monotonic() - began_at)
    tell(f"    {'as expected' if tested.is_as_expected else 'NOT AS EXPECTED'}: {', '.join(tested.objections) or '-'}")
    return tested


def _tested(name: str, bug: Bug, summary: Summary, *, seconds: float) -> Tested:
    found = list(_objections(summary))
    is_found = any(not objection.startswith("unknown") for objection in found)
    return Tested(
        bug=name,
        words=bug.words,
        is_as_expected=summary.is_good if name == CONTROL else is_found,
        objections=found,
        examples=[
            *summary.verdict.violations[:3],
            *(one for rule in summary.broken_rules for one in rule.examples[:1]),
        ],
        never_struck=summary.never_struck,
        payments=summary.verdict.payments,
        kills=summary.kills,
        seconds=round(seconds, 1),
    )


def _objections(summary: Summary) -> Iterable[str]:
    for rule, count in summary.verdict.by_rule.items():
        yield f"{rule} ({count})"
    for finding in summary.broken_rules:
        if finding.words != _TOO_EASY:
            yield f"verify: {finding.words} ({finding.broken})"
