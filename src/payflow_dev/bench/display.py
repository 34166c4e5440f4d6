"""What the terminal shows: a bar while it runs, tables when it is over."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from payflow_dev.bench.display_modes import print_modes
from payflow_dev.bench.money import MoneyReport
from payflow_dev.bench.population import FILE_PAYMENTS
from payflow_dev.bench.report import Report
from payflow_dev.bench.results import Step

_OTHERS_WORTH_TELLING = 0.1


class Display:
    """A bar over the planned seconds; lines instead where the output is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._done_s = self._phase_s = 0.0
        self._began_at = time.monotonic()
        self._what = ""

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def plan(self, seconds: float) -> None:
        """How long everything that is still to come will take."""
        self._progress.update(self._task, total=self._done_s + self._phase_s + seconds)

    def phase(self, what: str, seconds: float = 0.0) -> None:
        """A new phase, planned for so many seconds, begins."""
        self._done_s += self._phase_s
        self._phase_s, self._what, self._began_at = seconds, what, time.monotonic()
        self._progress.update(self._task, description=what, completed=self._done_s)
        if not self.console.is_terminal:
            self.console.print(f"{what} ...")

    def tick(self, note: str = "") -> None:
        """Move the bar; `note` stands behind the phase's name."""
        passed = min(time.monotonic() - self._began_at, self._phase_s)
        description = f"{self._what}  {note}" if note else self._what
        self._progress.update(self._task, description=description, completed=self._done_s + passed)

    def tell(self, line: str, style: str = "") -> None:
        """A line that stays."""
        self.console.print(Text(line, style=style))


def print_report(console: Console, report: Report) -> None:
    """Tables of the figures, then the verdict on the money."""
    machine, settings = report.machine, report.settings
    console.print(
        f"{machine.cores} cores {machine.cpu}, {machine.memory_mb} MB, {machine.kernel}, Python {machine.python}, "
        f"{machine.filesystem}, commit {machine.commit}"
    )
    console.print(
        f"{settings.customers} customers, {settings.accounts} accounts{', one debtor account' * settings.is_hot}, "
        f"{settings.inter_bank_share:.0%} to other banks, {settings.seconds:g} s a step, loader: {settings.loader}"
    )
    if settings.loader == "bulk":
        console.print(
            f"bulk: files of {FILE_PAYMENTS:,} payments, each from its upload to its last result; "
            "connections are files at once, latencies a whole file's"
        )
    if report.idle_load is not None:
        console.print(f"when nobody pays, the instance takes {report.idle_load:.0%} of a core")
    if report.pgbench:
        runs = ", ".join(f"{run.tps:,.0f}" for run in report.pgbench)
        console.print(f"pgbench TPC-B, {report.pgbench[0].clients} clients: {runs} transactions/s")
    if report.steps:
        console.print(_figures(report.steps))
    if any(step.cpu for step in report.steps):
        console.print(_cpu_table(report.steps))
    print_modes(console, report)
    for line in _warnings(report):
        console.print(Text(line, style="yellow"))
    _print_money(console, report.money)


def _figures(steps: list[Step]) -> Table:
    table = Table(header_style="bold")
    for name in ("connections", "payments/s", "p50 ms", "p95 ms", "p99 ms", "ratio (spread)", "CPU us/payment"):
        table.add_column(name, justify="right", no_wrap=True)
    is_long = any(step.history_entries for step in steps)
    table.add_column("errors", overflow="fold")
    if is_long:
        table.add_column("entries before", justify="right", no_wrap=True)
    for step in steps:
        ratio = f"{step.ratio.mean:.2f} ({step.ratio.low:.2f}-{step.ratio.high:.2f})" if step.ratio else "-"
        errors = ", ".join(f"{count} x {label}" for label, count in sorted(step.errors.items())) or "0"
        table.add_row(
            f"{step.connections} {step.group}".rstrip(),
            f"{step.payments_per_s:,.0f}",
            f"{step.latencies.p50_ms:.1f}",
            f"{step.latencies.p95_ms:.1f}",
            f"{step.latencies.p99_ms:.1f}",
            ratio,
            f"{step.cpu_us_per_payment:,.0f}" if step.cpu else "-",
            Text(errors, style="red" if step.errors else "green"),
            *([f"{step.history_entries:,}"] if is_long else []),
        )
    return table


def _cpu_table(steps: list[Step]) -> Table:
    table = Table(title="CPU seconds by process", header_style="bold", title_justify="left")
    table.add_column("process", no_wrap=True)
    for step in steps:
        table.add_column(f"{step.connections} {step.group or 'conn.'}", justify="right", no_wrap=True)
    measured = [step.cpu for step in steps if step.cpu]
    for name in dict.fromkeys(name for cpu in measured for name in cpu.by_process):
        table.add_row(name, *(f"{cpu.by_process.get(name, 0.0):.2f}" for cpu in measured))
    table.add_row("all of them, afterwards", *(f"{cpu.afterwards_s:.2f}" for cpu in measured))
    table.add_row("loader", *(f"{cpu.loader_s:.2f}" for cpu in measured))
    table.add_row("others on the machine", *(f"{cpu.others_s:.2f}" for cpu in measured))
    table.add_row("stolen by the host", *(f"{cpu.stolen_s:.2f}" for cpu in measured))
    return table


def _warnings(report: Report) -> list[str]:
    lines = []
    for step in report.steps:
        at = f"At {step.connections} connections"
        if step.cpu and step.cpu.others_s + step.cpu.stolen_s > _OTHERS_WORTH_TELLING * step.seconds * (
            report.machine.cores
        ):
            lines.append(f"{at} other programs or the host took CPU: these figures say less.")
        if step.cpu and step.cpu.settled_after_s is None:
            lines.append(f"{at} the events left behind were not worked off in time: the pgbench run after it suffered.")
        if step.restarts:
            lines.append(f"{at} {step.restarts} processes of the instance died and were started again.")
    return lines


def _print_money(console: Console, money: MoneyReport | None) -> None:
    if money is None:
        console.print(Text("money: not checked, that needs the instance's --data-dir", style="yellow"))
        return
    for line in money.differences:
        console.print(Text(f"  {line}", style="red"))
    if money.differences_count > len(money.differences):
        console.print(Text(f"  ... and {money.differences_count - len(money.differences)} more", style="red"))
    if money.late_successes:
        console.print(f"{money.late_successes} payments without an answer went through, each once.")
    console.print(Text(money.in_words(), style="bold green" if money.is_right else "bold red"))
