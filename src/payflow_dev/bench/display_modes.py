"""What the further modes print beside the tables of all runs: their figures, the database's, and the goals."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from payflow_dev.bench.memory import Memory
from payflow_dev.bench.overload import Overload
from payflow_dev.bench.report import Report, Stack


def print_modes(console: Console, report: Report) -> None:
    """The cost in the database, the figures of the run's mode, and its goals."""
    if report.tables is not None and report.tables.payments:
        written = sum(table.written for table in report.tables.tables) / report.tables.payments
        wal = [step.database.wal_bytes / max(1, step.database.payments) for step in report.steps if step.database]
        line = f"database, a payment: {written:.1f} rows written"
        if wal:
            line += f", {min(wal):,.0f} to {max(wal):,.0f} bytes of WAL"
        console.print(line)
    if report.overload is not None:
        _print_overload(console, report.overload)
    if report.memory is not None:
        _print_memory(console, report.memory)
    if report.velocity is not None:
        velocity = report.velocity
        console.print(
            f"{velocity.customers} customers with {velocity.payments_before:,} payments in the last 24 hours: "
            f"{velocity.ratio:.2f} x the rate of as many with none ({velocity.low:.2f}-{velocity.high:.2f})"
        )
    if report.stack is not None:
        _print_stack(console, report.stack)
    for goal in report.goals:
        style = "green" if goal.is_met else "red"
        verdict = "met" if goal.is_met else "not met"
        console.print(Text(f"{goal.name}: {goal.measured}, wanted {goal.wanted}: {verdict}", style=style))


def _print_overload(console: Console, figures: Overload) -> None:
    console.print(
        f"overload: {figures.wanted_per_s:,.0f} payments/s wanted, {figures.offered_per_s:,.0f} sent, "
        f"{figures.goodput_per_s:,.0f} acknowledged; {figures.refused:,} refused, {figures.unsent:,} not sent"
    )
    table = Table(title="memory, MB", header_style="bold", title_justify="left")
    for name in ("process", "before", "at most", "afterwards"):
        table.add_column(name, justify="left" if name == "process" else "right", no_wrap=True)
    for each in figures.memory:
        table.add_row(each.name, *(f"{kb / 1024:.1f}" for kb in (each.before_kb, each.peak_kb, each.after_kb)))
    console.print(table)


def _print_memory(console: Console, figures: Memory) -> None:
    console.print(
        f"{figures.payments:,} payments over {figures.connections} connections after {figures.warm_up_payments:,} "
        f"of warm-up; memory after each turn: {len(figures.samples)} samples"
    )
    table = Table(title="memory, MB", header_style="bold", title_justify="left")
    for name in ("process", "first third", "last third", "KB per 100,000 payments"):
        table.add_column(name, justify="left" if name == "process" else "right", no_wrap=True)
    for each in figures.growth:
        growth = Text(f"{each.kb_per_100000:+,.0f}", style="" if each.is_steady else "red")
        table.add_row(each.name, f"{each.first_kb / 1024:.1f}", f"{each.last_kb / 1024:.1f}", growth)
    console.print(table)


def _print_stack(console: Console, figures: Stack) -> None:
    table = Table(title="the same payments, in turns", header_style="bold", title_justify="left")
    for name in ("with", "payments/s", "of the first", "low", "high", "CPU us/payment"):
        table.add_column(name, justify="left" if name == "with" else "right", no_wrap=True)
    for each in figures.variations:
        shares = (f"{share:.1%}" for share in (each.ratio, each.low, each.high))
        table.add_row(each.name, f"{each.payments_per_s:,.0f}", *shares, f"{each.cpu_us_per_payment:,.0f}")
    console.print(table)
    table = Table(title="events, from happening to committed effect", header_style="bold", title_justify="left")
    for name in ("through", "load", "consumer", "events", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right" if name in ("events", "p50 ms", "p99 ms") else "left", no_wrap=True)
    for delay in figures.delays:
        quantiles = (f"{ms:.0f}" for ms in (delay.p50_ms, delay.p99_ms))
        table.add_row(delay.log, delay.load, delay.consumer, f"{delay.events:,}", *quantiles)
    console.print(table)
