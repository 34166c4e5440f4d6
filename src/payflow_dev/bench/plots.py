"""Pictures and tables of kept results: `python -m payflow_dev.bench.plots bench/results/*.json`.

Draws docs/pictures/bench-*.svg and writes the tables of docs/performance.md anew, between its marks.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, Final

import pygal
from pygal.style import Style

from payflow.run.instance import repository_root
from payflow_dev.bench.costs import MEASURED, as_json, costs_of
from payflow_dev.bench.figures import replace_figures, section
from payflow_dev.bench.kept import (
    Kept,
    connections_of,
    cpu_us_by_process,
    over_connections,
    over_history,
    read_kept,
    steps_at,
)

RATE: Final = "bench-rate.svg"
LATENCY: Final = "bench-latency.svg"
CPU: Final = "bench-cpu.svg"
HISTORY: Final = "bench-history.svg"
_RUNS_MAX: Final = 4
_DROPPED: Final = re.compile(r"<script.*?</script>|<script[^>]*/>|<!--Generated.*?-->", re.DOTALL)
# Processes below this share of all CPU are drawn as one.
_SHARE_MIN: Final = 0.02
_STYLE: Final = Style(
    background="white",
    plot_background="white",
    font_family="sans-serif",
    colors=(
        "#1f6f8b", "#e07a3f", "#5b8c5a", "#9b5094", "#c9a227", "#4a5899", "#b5483a", "#6aa5a9", "#8a6d4b", "#777777",
        "#d49bb4", "#34495e", "#a3b86c",
    ),
)  # fmt: skip


def draw(kept: Sequence[Kept], directory: Path) -> list[str]:
    """Draw what these runs (the oldest first) have; returns the names of the pictures."""
    pictures: dict[str, Callable[[], pygal.graph.graph.Graph]] = {}
    steps, histories = over_connections(kept), over_history(kept)
    if steps:
        pictures[RATE] = lambda: rate_chart(steps[-_RUNS_MAX:])
        pictures[LATENCY] = lambda: latency_chart(steps[-1])
        if any(step.cpu for step in steps[-1].report.steps):
            pictures[CPU] = lambda: cpu_chart(steps[-1])
    if histories:
        pictures[HISTORY] = lambda: history_chart(histories[-1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, chart in pictures.items():
        (directory / name).write_text(as_svg(chart()), encoding="utf-8")
    return list(pictures)


def rate_chart(runs: Sequence[Kept]) -> pygal.graph.graph.Graph:
    """Payments a second over connections, a line for each run, and pgbench of the newest."""
    counts = sorted({count for run in runs for count in connections_of(run.report)})
    chart = _chart(pygal.Line, "payments a second", counts, "connections")
    for run in runs:
        chart.add(run.name, [_mean(step.payments_per_s for step in steps_at(run.report, count)) for count in counts])
    newest = runs[-1].report
    neighbours = [[tps for step in steps_at(newest, count) for tps in step.neighbours_tps] for count in counts]
    if any(neighbours):
        chart.add(
            f"pgbench TPC-B, {runs[-1].name}", [_mean(tps) for tps in neighbours], stroke_style={"dasharray": "6"}
        )
    return chart


def latency_chart(run: Kept) -> pygal.graph.graph.Graph:
    """p50, p95 and p99 over connections."""
    counts = connections_of(run.report)
    chart = _chart(pygal.Line, f"milliseconds, {run.name}", counts, "connections", logarithmic=True)
    for name in ("p50", "p95", "p99"):
        latencies = [
            _mean(getattr(step.latencies, f"{name}_ms") for step in steps_at(run.report, count)) for count in counts
        ]
        chart.add(name, [value or None for value in latencies])
    return chart


def cpu_chart(run: Kept) -> pygal.graph.graph.Graph:
    """CPU microseconds per payment by process, stacked, over connections.

    Single payments are left out: what a process takes while it waits for them would dwarf all others.
    """
    counts = [count for count in connections_of(run.report) if count > 1]
    columns = [cpu_us_by_process(steps_at(run.report, count)) for count in counts]
    chart = _chart(pygal.StackedBar, f"CPU microseconds per payment, {run.name}", counts, "connections")
    names = sorted({name for column in columns for name in column}, key=lambda name: -columns[-1].get(name, 0.0))
    shown = [
        name for name in names if any(column.get(name, 0.0) >= _SHARE_MIN * sum(column.values()) for column in columns)
    ]
    for name in shown:
        chart.add(name, [round(column.get(name, 0.0), 1) for column in columns])
    rest = [round(sum(us for name, us in column.items() if name not in shown), 1) for column in columns]
    if any(rest):
        chart.add("others", rest)
    return chart


def history_chart(run: Kept) -> pygal.graph.graph.Graph:
    """Payments a second over the length of the ledger, a line for each number of connections."""
    lengths = sorted({step.history_entries for step in run.report.steps})
    chart = _chart(pygal.Line, f"payments a second, {run.name}", lengths, "journal entries before")
    for count in connections_of(run.report):
        rates = [
            _mean(step.payments_per_s for step in steps_at(run.report, count) if step.history_entries == length)
            for length in lengths
        ]
        chart.add(f"{count} connections", rates)
    return chart


def _chart(
    kind: Callable[..., pygal.graph.graph.Graph], title: str, labels: Sequence[int], x_title: str, **options: Any
) -> pygal.graph.graph.Graph:
    """A chart over numbers that are far apart: each has the same room."""
    options = {"include_x_axis": not options.get("logarithmic", False), **options}
    chart = kind(
        style=_STYLE,
        width=900,
        height=460,
        title=title,
        x_title=x_title,
        legend_at_bottom=True,
        legend_at_bottom_columns=4,
        js=(),
        pretty_print=True,
        show_minor_x_labels=True,
        truncate_legend=-1,
        **options,
    )
    chart.x_labels = [f"{label:,}" for label in labels]
    return chart


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return round(mean(found), 2) if found else None


def as_svg(chart: pygal.graph.graph.Graph) -> str:
    """The picture as text, the same for the same figures: without the scripts, the date and the random id of pygal."""
    text = str(chart.render(is_unicode=True)).replace(str(chart.uuid), "0")
    return _DROPPED.sub("", text).rstrip() + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the files, draw, write the tables."""
    parser = argparse.ArgumentParser(prog="python -m payflow_dev.bench.plots", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="files that payflow bench --json wrote")
    parser.add_argument("--docs", type=Path, default=repository_root() / "docs", help="where the documents are")
    given = parser.parse_args(arguments)
    kept, others = read_kept(given.results)
    for path in others:
        print(f"{path} is no result of the bench: left out")
    if not kept:
        parser.error("none of these files is a result of the bench")
    pictures = draw(kept, given.docs / "pictures")
    replace_figures(given.docs / "performance.md", section(kept, pictures))
    costs = costs_of(over_connections(kept))
    if costs is not None and given.docs == repository_root() / "docs":
        MEASURED.write_bytes(as_json(costs))
    print(f"{len(pictures)} pictures and the figures of {given.docs / 'performance.md'} from {len(kept)} runs")


if __name__ == "__main__":
    main()
