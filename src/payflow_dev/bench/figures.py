"""The tables of docs/performance.md: written by a command, never by hand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Final

from payflow_dev.bench.database import DatabaseFigures
from payflow_dev.bench.goals import Goal
from payflow_dev.bench.kept import (
    Kept,
    connections_of,
    cpu_us_by_process,
    of_files,
    of_one_debtor,
    over_connections,
    over_history,
    steps_at,
    taken_by_others,
)
from payflow_dev.bench.results import Step
from payflow_dev.bench.targets import targets

BEGIN: Final = "<!-- figures: written by `make plots`, not by hand -->"
END: Final = "<!-- end of figures -->"
# Where the budget is read off: the load at which batches are as long as they get without a queue.
_BUDGET_CONNECTIONS: Final = (64, 256, 16, 1)
_STATEMENTS_MAX: Final = 20
_PICTURES: Final = {
    "bench-rate.svg": "payments a second over connections",
    "bench-latency.svg": "latency over connections",
    "bench-cpu.svg": "CPU microseconds per payment by process, over connections",
    "bench-history.svg": "payments a second over the length of the ledger",
}
_NOISY: Final = 0.1


def replace_figures(document: Path, text: str) -> None:
    """Put the text between the document's marks. Raises ValueError where it has none."""
    before, begin, rest = document.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document} has no marks for its figures")
    document.write_text(f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}", encoding="utf-8")


def section(kept: Sequence[Kept], pictures: Sequence[str]) -> str:
    """The tables of these runs (oldest first; of each kind the newest counts), under the pictures of these names."""
    lines = [f"![{_PICTURES[name]}](pictures/{name})\n" for name in pictures]
    steps, histories = over_connections(kept), over_history(kept)
    goals = targets(kept)
    if goals:
        lines += ["### What was to be reached\n", *_goals_table(goals)]
    if steps:
        lines += [*_run_lines("The rate over connections", steps[-1]), *_steps_table(steps[-1])]
        lines += [*_budget(steps[-1])]
    if histories:
        lines += [*_run_lines("The rate over the length of the ledger", histories[-1]), *_history_table(histories[-1])]
    for title, runs in (
        ("One debtor account for everything", of_one_debtor(kept)),
        ("Payments in files", of_files(kept)),
    ):
        if runs:
            lines += [*_run_lines(title, runs[-1]), *_steps_table(runs[-1])]
    for title, mode in (
        ("Overload", "overload"),
        ("Memory over many payments", "memory"),
        ("A customer's long day", "velocity"),
        ("Kafka and telemetry, and how long events take", "stack"),
    ):
        runs = [each for each in kept if each.report.settings.mode == mode and each.report.goals]
        if runs:
            lines += [*_run_lines(title, runs[-1]), *_goals_table(runs[-1].report.goals)]
    return "\n".join(lines)


def _run_lines(title: str, run: Kept) -> Iterator[str]:
    report, machine = run.report, run.report.machine
    yield f"### {title}\n"
    made = report.made_at[:10] or "before dates were kept"
    yield (
        f"`bench/results/{run.name}.json`: {made}, commit {machine.commit}, {machine.cores} cores {machine.cpu}, "
        f"Python {machine.python}, {machine.filesystem}, loader {report.settings.loader}, "
        f"{report.settings.seconds:g} s a step."
    )
    if report.pgbench:
        rates = [run.tps for run in report.pgbench]
        yield f"pgbench beside it: {min(rates):,.0f} to {max(rates):,.0f} transactions a second."
    share = taken_by_others(report)
    if share > _NOISY:
        yield (
            f"**A noisy run: other programs and the host took {share:.0%} of the machine meanwhile. Rates and times "
            "say little; CPU, rows and WAL per payment say more.**"
        )
    if machine.commit.endswith("+"):
        yield "**Measured with files that differ from the commit: it cannot be measured again.**"
    if report.money is not None:
        yield f"{report.money.in_words().capitalize()}."
        if not report.money.is_right:
            yield "**The money was not right: this run proves nothing.**"
    yield ""


def _steps_table(run: Kept) -> Iterator[str]:
    yield "| connections | payments/s | x pgbench | p50 ms | p95 ms | p99 ms | CPU us/payment | errors |"
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|"
    for step in run.report.steps:
        yield f"| {f'{step.connections} {step.group}'.rstrip()} | {_figures_of(step)} |"
    yield ""


def _figures_of(step: Step) -> str:
    ratio = f"{step.ratio.mean:.2f} ({step.ratio.low:.2f}-{step.ratio.high:.2f})" if step.ratio else "-"
    times = " | ".join(
        f"{value:.1f}" for value in (step.latencies.p50_ms, step.latencies.p95_ms, step.latencies.p99_ms)
    )
    return f"{step.payments_per_s:,.0f} | {ratio} | {times} | {step.cpu_us_per_payment:,.0f} | {step.error_count}"


def _history_table(run: Kept) -> Iterator[str]:
    yield (
        "| entries before | connections | payments/s | x pgbench | p50 ms | p95 ms | p99 ms | CPU us/payment | errors |"
    )
    yield "|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
    for step in run.report.steps:
        yield f"| {step.history_entries:,} | {step.connections} | {_figures_of(step)} |"
    yield ""


def _goals_table(goals: Sequence[Goal]) -> Iterator[str]:
    yield "| goal | wanted | measured | |"
    yield "|---|---|---|---|"
    for goal in goals:
        yield f"| {goal.name} | {goal.wanted} | {goal.measured} | {'met' if goal.is_met else '**not met**'} |"
    yield ""


def _budget(run: Kept) -> Iterator[str]:
    """What a payment costs: CPU by process, statements, rows by table."""
    counts = connections_of(run.report)
    connections = next((count for count in _BUDGET_CONNECTIONS if count in counts), counts[-1])
    steps = steps_at(run.report, connections)
    yield f"### The budget of a payment, at {connections} connections\n"
    yield from _cpu_table(steps)
    costs = [step.database for step in steps if step.database is not None and step.database.payments]
    if costs:
        yield from _statements_table(costs)
    tables = run.report.tables
    if tables is not None and tables.payments:
        yield "Row versions written, over all steps of the run; HOT: updates that changed no index.\n"
        yield "| table | inserted | updated | of these HOT | deleted |"
        yield "|---|--:|--:|--:|--:|"
        for table in tables.tables:
            if table.written >= tables.payments / 100:
                numbers = (table.inserted, table.updated, table.hot_updated, table.deleted)
                yield f"| {table.name} | " + " | ".join(f"{count / tables.payments:.2f}" for count in numbers) + " |"
        total = sum(table.written for table in tables.tables) / tables.payments
        yield f"\nAll tables together: {total:.1f} rows a payment.\n"


def _cpu_table(steps: Sequence[Step]) -> Iterator[str]:
    by_process = cpu_us_by_process(steps)
    total = sum(by_process.values())
    if not total:
        return
    yield "| process | CPU us/payment | share |"
    yield "|---|--:|--:|"
    for name, us in sorted(by_process.items(), key=lambda each: -each[1]):
        yield f"| {name} | {us:,.0f} | {us / total:.0%} |"
    yield f"| **all** | **{total:,.0f}** | |"
    loader = mean(step.loader_us_per_request for step in steps)
    yield f"| the loader, on top of it | {loader:,.0f} | |"
    yield ""


def _statements_table(costs: Sequence[DatabaseFigures]) -> Iterator[str]:
    payments = sum(cost.payments for cost in costs)
    found: dict[tuple[str, str], tuple[int, int, int]] = {}
    for cost in costs:
        for each in cost.statements:
            calls, rows, wal = found.get((each.service, each.name), (0, 0, 0))
            found[each.service, each.name] = (calls + each.calls, rows + each.rows, wal + each.wal_bytes)
    wal_bytes = sum(cost.wal_bytes for cost in costs) / payments
    if not found:
        yield f"WAL: {wal_bytes:,.0f} bytes a payment (statements were not counted).\n"
        return
    yield (
        f"SQL: {sum(calls for calls, _, _ in found.values()) / payments:.2f} statements and {wal_bytes:,.0f} bytes of "
        "WAL a payment, all services together, the work afterwards included. The statements that write most, then the "
        "most frequent; a batch shares each call.\n"
    )
    yield "| service | statement | calls/payment | rows/payment | WAL bytes/payment |"
    yield "|---|---|--:|--:|--:|"
    ordered = sorted(found.items(), key=lambda each: (-each[1][2], -each[1][0]))
    for (service, name), (calls, rows, wal) in ordered[:_STATEMENTS_MAX]:
        statement = name.replace("|", "\\|")
        yield (
            f"| {service} | `{statement}` | {calls / payments:.3f} | {rows / payments:.2f} | {wal / payments:,.0f} |"
        )
    yield ""
