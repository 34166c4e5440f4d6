"""Whether a fault run was good: its limits of time, what it promised to strike, the model; and runs kept before."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from payflow.run.main import main
from payflow_dev.chaos.judge import Verdict
from payflow_dev.chaos.limits import TOO_FEW_KILLS, percentile_95
from payflow_dev.chaos.model import ModelVerdict
from payflow_dev.chaos.summary import Summary

KEPT = sorted((Path(__file__).parents[2] / "bench/results").glob("*-chaos-*.json"))


def a_summary(**change: Any) -> Summary:
    verdict = Verdict(
        calls=1, payments=1, acknowledged=1, refused=0, unknown=0, completed=1, faults=42, violations=[], by_rule={}
    )
    values: dict[str, Any] = {
        "machine": {},
        "seed": 1,
        "seconds": 60.0,
        "kills": 41,
        "faults": {"kill": 41, "crossing": 1},
        "coverage": {"confirm": {"kill": 40}, "postgres": {"kill": 1}, "everybody": {"crossing": 1}},
        "never_struck": [],
        "not_run": {},
        "back_p95_s": 5.0,
        "paying_p95_s": 5.0,
        "postgres_back_s": [30.0],
        "quiet_after_s": 30.0,
        "verdict": verdict,
        "broken_rules": [],
        "stuck": 0,
        "model": ModelVerdict(file="x", payments=1, violations=[]),
        "promised": ["confirm", "everybody", "postgres"],
    }
    return Summary(**(values | change))


def test_a_run_that_just_meets_every_limit_is_good() -> None:
    summary = a_summary()

    assert summary.problems == []
    assert summary.is_good


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"back_p95_s": 5.1}, "back after a kill 5.1 s (at most 5 s, 95th percentile of 40 kills): LIMIT NOT MET"),
        ({"paying_p95_s": 20.0}, "paying after a kill 20 s (at most 5 s, 95th percentile of 40 kills): LIMIT NOT MET"),
        (
            {"postgres_back_s": [1.0, 60.0]},
            "paying after PostgreSQL was killed 60 s (at most 30 s, the slowest of 2): LIMIT NOT MET",
        ),
        ({"quiet_after_s": 119.0}, "quiet after the last fault 119 s (at most 30 s): LIMIT NOT MET"),
        ({"promised": ["confirm", "kyc"]}, "never struck: kyc"),
        ({"coverage": {}, "promised": []}, "never struck: 42 faults struck, 0 of them are in the coverage"),
        ({"never_back": ["otp (kill otp)"]}, "never back: otp (kill otp)"),
        ({"not_run": {"disk-full": "no root"}}, "not run: disk-full: no root; excuse it with --without disk-full"),
        ({"stuck": 2}, "2 things are stuck"),
        (
            {"model": ModelVerdict(file="x", payments=7, violations=[], not_checked="no java")},
            "not checked: 7 recorded payments against the model (no java; excuse it with --without model)",
        ),
    ],
)
def test_what_makes_it_no_good_run_is_told(change: dict[str, Any], words: str) -> None:
    summary = a_summary(**change)

    assert words in summary.problems
    assert not summary.is_good


def test_a_model_that_nobody_wanted_to_ask_is_excused_and_told() -> None:
    excused = ModelVerdict(file="x", payments=7, violations=[], not_checked="excused", is_excused=True)

    assert a_summary(model=excused).is_good
    assert excused.words == "not checked: 7 recorded payments against the model (excused)"


@pytest.mark.parametrize(("slowest_s", "is_good"), [(4.9, True), (5.1, False)])
def test_of_too_few_kills_for_a_percentile_each_is_to_be_in_time_and_that_is_told(
    slowest_s: float, is_good: bool
) -> None:
    coverage = {"confirm": {"kill": 5}}
    figure = percentile_95([0.5, slowest_s, 0.6, 0.5, 0.5])
    summary = a_summary(
        kills=5, faults={"kill": 5}, coverage=coverage, promised=["confirm"], postgres_back_s=[], paying_p95_s=figure
    )

    assert summary.is_good is is_good
    assert any("the slowest of 5 kills, too few for a 95th percentile" in limit.words for limit in summary.limits)


def test_the_percentile_of_many_leaves_the_slowest_twentieth_out() -> None:
    assert percentile_95([*[1.0] * 95, *[9.0] * 5]) == 9.0
    assert percentile_95([*[1.0] * 96, *[9.0] * 4]) == 1.0
    assert percentile_95([*[1.0] * (TOO_FEW_KILLS - 1), 9.0]) == 9.0
    assert percentile_95([]) == 0.0


def test_a_run_in_which_nothing_was_killed_has_no_limit_for_that() -> None:
    limits = a_summary(kills=0, postgres_back_s=[]).limits

    assert [limit.what for limit in limits] == ["quiet after the last fault"]


def test_summaries_that_were_kept_are_read_and_a_limit_that_was_not_met_is_told() -> None:
    kept = {
        path.name: msgspec.json.decode(path.read_bytes(), type=Summary) for path in KEPT if "self-test" not in path.name
    }

    assert len(kept) >= 5
    slow = kept["2026-11-28-chaos-200-faults-all-kinds.json"]
    assert [limit.words for limit in slow.limits if not limit.is_met] == [
        "paying after a kill 6.19 s (at most 5 s, 95th percentile of 79 kills): LIMIT NOT MET"
    ]
    assert kept["2026-11-29-chaos-300-kills.json"].is_good


@pytest.mark.parametrize(
    ("name", "exit_code", "words"),
    [
        ("200-faults-all-kinds", 1, "LIMIT NOT MET"),
        ("300-kills", 0, "all was well again in time"),
    ],
)
def test_a_summary_that_was_kept_is_shown_with_its_limits(
    name: str, exit_code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = (path for path in KEPT if path.stem.endswith(f"-chaos-{name}"))

    assert shown(path, monkeypatch) == exit_code
    told = " ".join(capsys.readouterr().out.split())
    assert words in told
    assert "paying after a kill" in told


def test_what_is_no_summary_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.json").write_text("[]")

    assert shown(tmp_path / "other.json", monkeypatch) == 1
    assert "other.json" in "".join(capsys.readouterr().err.split())


def shown(path: Path, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """The exit code of showing it."""
    monkeypatch.setattr(sys, "argv", ["payflow", "chaos", "--show", str(path)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code
