"""Kept results become pictures and tables: the same ones for the same files."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import msgspec
import pytest

from payflow_dev.bench.figures import BEGIN, END, replace_figures, section
from payflow_dev.bench.kept import (
    Kept,
    cpu_us_by_process,
    over_connections,
    over_history,
    read_kept,
    steps_at,
    taken_by_others,
)
from payflow_dev.bench.overload import MemoryInOverload, figures_of
from payflow_dev.bench.plots import CPU, HISTORY, LATENCY, RATE, as_svg, draw, main, rate_chart
from payflow_dev.bench.report import Report
from payflow_dev.bench.stats import Ratio
from payflow_dev.bench.targets import targets

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "tests" / "data" / "bench" / "sample.json"


def sample() -> Kept:
    (kept,), others = read_kept([SAMPLE])
    assert others == []
    return kept


def with_history(kept: Kept) -> Kept:
    steps = [
        msgspec.structs.replace(step, history_entries=entries)
        for entries in (1_000_000, 10_000_000)
        for step in kept.report.steps
    ]
    return Kept("history", msgspec.structs.replace(kept.report, steps=steps))


def with_overload(kept: Kept) -> Kept:
    memory = [MemoryInOverload(name="otp", before_kb=1, peak_kb=2, after_kb=1)]
    step = kept.report.steps[0]
    figures = figures_of(best_per_s=1e9, best_after_per_s=1e9, normal_ms=1.0, step=step, memory=memory, rise=0.0)
    settings = msgspec.structs.replace(kept.report.settings, mode="overload")
    return Kept("overload", msgspec.structs.replace(kept.report, settings=settings, overload=figures))


def test_a_result_is_read_as_it_was_written() -> None:
    report = sample().report

    again = msgspec.json.decode(msgspec.json.encode(report), type=Report)

    assert again == report


def test_results_of_the_first_version_are_read_too() -> None:
    found, others = read_kept(sorted((ROOT / "bench" / "results").glob("*.json")))

    assert any(each.name == "2026-11-24-baseline" for each in found)
    assert found[0].report.made_at == ""
    assert all(path.suffix == ".json" for path in others)


def test_every_result_that_is_kept_can_be_read() -> None:
    """Those of fault runs and of their self-test are of another kind."""
    _, others = read_kept(sorted((ROOT / "bench" / "results").glob("*.json")))

    assert [path.name for path in others if "-chaos-" not in path.name] == []


def test_files_of_something_else_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "chaos.json").write_text('{"kills": 300}')
    (tmp_path / "text.json").write_text("nothing")

    found, others = read_kept([tmp_path / "chaos.json", SAMPLE, tmp_path / "text.json"])

    assert [each.name for each in found] == ["sample"]
    assert [path.name for path in others] == ["chaos.json", "text.json"]


def test_runs_are_told_apart_by_what_was_measured() -> None:
    plain, history, overload = sample(), with_history(sample()), with_overload(sample())

    assert over_connections([plain, history, overload]) == [plain]
    assert over_history([plain, history, overload]) == [history]


def test_pictures_are_drawn_for_what_there_is(tmp_path: Path) -> None:
    assert draw([sample()], tmp_path) == [RATE, LATENCY, CPU]
    assert draw([sample(), with_history(sample())], tmp_path) == [RATE, LATENCY, CPU, HISTORY]
    assert draw([with_overload(sample())], tmp_path) == []

    for path in tmp_path.iterdir():
        assert ElementTree.parse(path).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_the_same_figures_give_the_same_picture_without_scripts() -> None:
    first, second = (as_svg(rate_chart([sample()])) for _ in range(2))

    assert first == second
    assert "<script" not in first
    assert "Generated with" not in first


def test_the_cpu_of_a_payment_is_shared_out_among_the_processes() -> None:
    for connections in (16, 64):
        steps = steps_at(sample().report, connections)

        by_process = cpu_us_by_process(steps)

        assert sum(by_process.values()) == pytest.approx(steps[0].cpu_us_per_payment, rel=0.01)
        assert by_process["postgres"] > by_process["valkey"]


def test_the_tables_tell_the_budget_of_a_payment() -> None:
    text = section([sample()], [RATE])

    assert "![payments a second over connections](pictures/bench-rate.svg)" in text
    assert "### The budget of a payment, at 64 connections" in text
    assert "| postgres |" in text
    assert "| confirm | `claim` |" in text
    assert "| confirm.transactions |" in text
    assert "WAL a payment" in text


def test_each_run_tells_how_fast_its_machine_was_by_the_pgbench_beside_it() -> None:
    kept = sample()
    tps = [run.tps for run in kept.report.pgbench]

    text = section([kept], [])

    assert f"pgbench beside it: {min(tps):,.0f} to {max(tps):,.0f} transactions a second." in text


def test_goals_that_were_not_reached_are_told_as_such() -> None:
    text = section([with_overload(sample())], [])

    (told,) = (line for line in text.splitlines() if line.startswith("| goodput under 4 x overload |"))
    assert told.startswith("| goodput under 4 x overload | >= 80% of the best | 0% (")
    assert told.endswith("1,000,000,000 before, 1,000,000,000 after) | **not met** |")


def with_ratio(kept: Kept, name: str, ratio: float, **settings: object) -> Kept:
    """The same run at so many times pgbench, and of another kind."""
    spread = Ratio(mean=ratio, low=ratio, high=ratio)
    steps = [msgspec.structs.replace(step, ratio=spread) for step in kept.report.steps]
    changed = msgspec.structs.replace(kept.report.settings, **settings)
    return Kept(name, msgspec.structs.replace(kept.report, steps=steps, settings=changed))


@pytest.mark.parametrize(("single", "is_met"), [(0.99, False), (1.0, True)])
def test_the_rate_is_told_as_a_multiple_of_pgbench_and_against_what_was_wanted(single: float, is_met: bool) -> None:
    (goal,) = (one for one in targets([with_ratio(sample(), "steps", single)]) if one.name.startswith("payments a"))

    assert (goal.measured.split(",")[0], goal.is_met) == (f"{single:.2f} x", is_met)


def test_runs_of_other_kinds_are_told_by_how_many_times_the_plain_one_they_are() -> None:
    kept = [
        with_ratio(sample(), "steps", 0.5),
        with_ratio(sample(), "hot", 0.35, is_hot=True),
        with_ratio(sample(), "files", 1.5, loader="bulk"),
    ]

    goals = {goal.name: goal for goal in targets(kept)}

    hot, files = goals["one debtor account for everything"], goals["payments in files"]
    assert (hot.measured, hot.is_met) == ("0.70 x", False)
    assert (files.measured, files.is_met) == ("3.0 x", True)


def test_a_rate_that_falls_is_told() -> None:
    kept = sample()
    falls = [msgspec.structs.replace(step, payments_per_s=1000.0 - step.connections) for step in kept.report.steps]
    run = Kept("falls", msgspec.structs.replace(kept.report, steps=falls))

    (goal,) = (one for one in targets([run]) if one.wanted == "never falls")

    assert not goal.is_met


def test_a_long_ledger_is_compared_with_a_short_one() -> None:
    kept = with_history(sample())
    spread = Ratio(mean=0.5, low=0.5, high=0.5)
    slower = Ratio(mean=0.44, low=0.44, high=0.44)
    steps = [
        msgspec.structs.replace(step, ratio=spread if step.history_entries < 10_000_000 else slower)
        for step in kept.report.steps
    ]

    (goal,) = targets([Kept("history", msgspec.structs.replace(kept.report, steps=steps))])

    assert (goal.measured, goal.is_met) == ("-12.0%", False)


def test_a_run_that_proves_nothing_says_so() -> None:
    report = sample().report
    assert report.money is not None
    money = msgspec.structs.replace(report.money, wrong=1, differences_count=1)
    machine = msgspec.structs.replace(report.machine, commit="abc+")

    bad = Kept("bad", msgspec.structs.replace(report, money=money, machine=machine))
    text = section([bad], [])

    assert not any(goal.is_met for goal in targets([bad]))

    assert "**The money was not right: this run proves nothing.**" in text
    assert "**Measured with files that differ from the commit" in text
    assert "proves nothing" not in section([sample()], [])


def test_a_run_beside_other_programs_says_so() -> None:
    kept = sample()
    cpu = kept.report.steps[0].cpu
    assert cpu is not None
    noisy = msgspec.structs.replace(kept.report.steps[0], cpu=msgspec.structs.replace(cpu, others_s=100.0))
    quiet = msgspec.structs.replace(kept.report.steps[0], cpu=msgspec.structs.replace(cpu, others_s=0.0, stolen_s=0.0))

    assert taken_by_others(msgspec.structs.replace(kept.report, steps=[noisy])) == 1.0
    assert taken_by_others(msgspec.structs.replace(kept.report, steps=[quiet])) == 0.0


def test_tables_are_written_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "performance.md").write_text(f"# Before\n\n{BEGIN}\n\nold\n\n{END}\n\nafter\n")

    main([str(SAMPLE), "--docs", str(tmp_path)])
    once = (tmp_path / "performance.md").read_text()
    main([str(SAMPLE), "--docs", str(tmp_path)])

    assert (tmp_path / "performance.md").read_text() == once
    assert once.startswith("# Before\n")
    assert once.endswith(f"{END}\n\nafter\n")
    assert "old" not in once


def test_a_document_without_marks_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "performance.md"
    path.write_text("# By hand\n")

    with pytest.raises(ValueError, match="marks"):
        replace_figures(path, "figures")

    assert path.read_text() == "# By hand\n"


def test_the_kept_document_has_its_marks_and_pictures() -> None:
    text = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")

    assert text.count(BEGIN) == text.count(END) == 1
