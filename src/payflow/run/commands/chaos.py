"""`payflow chaos`: payments under faults, and a judge of what is left."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.errors import StartError

if TYPE_CHECKING:
    from payflow_dev.chaos.run import Summary


POSITIONS = ("before_delivery", "after_delivery", "after_answer", "half_an_answer", "late_delivery")


def chaos(
    seed: Annotated[int, typer.Option(help="Of the faults and payments.")] = 1,
    kills: Annotated[int, typer.Option(help="Go on until so many processes were killed ...", min=0)] = 100,
    payments: Annotated[int, typer.Option(help="... and so many payments were acknowledged.", min=0)] = 5000,
    faults: Annotated[int | None, typer.Option(help="Instead: so many faults.", min=1)] = None,
    customers: Annotated[int, typer.Option(help="How many customers pay.", min=8)] = 64,
    history: Annotated[
        Path | None, typer.Option(help="Where the history goes; default: chaos-SEED.jsonl here.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the summary to this file.")] = None,
    only_judge: Annotated[bool, typer.Option("--judge", help="Only judge the file that --history names.")] = False,
) -> None:
    """Run payments under faults on an instance of its own: kills and lost answers on every edge of a payment's way."""
    try:
        from payflow_dev.chaos.judge import judge
        from payflow_dev.chaos.run import Options, run_chaos
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError("Fault runs are part of the repository: run them from a clone of it.") from None
    import msgspec

    if only_judge:
        if history is None:
            raise StartError("--judge needs --history FILE.")
        verdict = judge(history)
        print(msgspec.json.format(msgspec.json.encode(verdict), indent=2).decode())
        raise typer.Exit(0 if verdict.is_good else 1)
    options = Options(
        seed=seed, kills=kills, payments=payments, faults_max=faults, customers=customers, history=history
    )
    summary = run_chaos(options)
    if json_file is not None:
        json_file.write_bytes(msgspec.json.format(msgspec.json.encode(summary), indent=2) + b"\n")
    _print(summary)
    raise typer.Exit(0 if summary.is_good else 1)


def _print(summary: Summary) -> None:
    from rich.markup import escape
    from rich.table import Table

    from payflow.run.supervisor.console import make_console

    console = make_console()
    table = Table(header_style="bold", title="faults by edge: caller killed / callee killed / cut or delayed")
    table.add_column("edge", no_wrap=True)
    for position in POSITIONS:
        table.add_column(position.replace("_", " "), justify="right", overflow="fold")
    for edge, counts in summary.coverage.items():
        table.add_row(edge, *(_cell(counts, position) for position in POSITIONS))
    console.print(table)
    verdict = summary.verdict
    console.print(
        f"{summary.kills} kills, {sum(summary.faults.values())} faults, {verdict.acknowledged:,} payments acknowledged,"
        f" {verdict.refused:,} refused, {verdict.unknown:,} calls without a word; in {summary.seconds:.0f} s\n"
        f"back {summary.back_p95_s} s and paying {summary.paying_p95_s} s after a kill (p95), "
        f"PostgreSQL {summary.postgres_back_s} s; quiet {summary.quiet_after_s} s after the last fault"
    )
    for violation in verdict.violations:
        console.print(f"[red]{escape(violation)}[/]")
    for finding in summary.broken_rules:
        console.print(f"[red]broken: {escape(finding.words)}: {escape(', '.join(finding.examples))}[/]")
    console.print(
        "[green]Nothing was lost, doubled, made up or left open.[/]"
        if summary.is_good
        else f"[bold red]The run failed: {verdict.by_rule}, {len(summary.broken_rules)} rules broken, "
        f"{summary.stuck} things stuck.[/]"
    )


def _cell(counts: dict[str, int], position: str) -> str:
    caller, callee = counts.get(f"kill-caller {position}", 0), counts.get(f"kill-callee {position}", 0)
    other = counts.get(f"cut {position}", 0) + counts.get(f"delay {position}", 0)
    return f"{caller} / {callee} / {other}"


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(chaos)
