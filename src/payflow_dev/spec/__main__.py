"""`python -m payflow_dev.spec`: prove the model, or hold recorded payments against it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from payflow.run.inspection import owner_url
from payflow_dev.spec import proofs
from payflow_dev.spec.histories import check_histories
from payflow_dev.spec.recording import record_histories
from payflow_dev.spec.tlc import CheckFailed, ToolMissing, fetch

app = typer.Typer(add_completion=False, no_args_is_help=False, help=__doc__)
console = Console(width=max(120, Console().width))


@app.callback(invoke_without_command=True)
def prove(
    context: typer.Context,
    workers: Annotated[int, typer.Option(help="Threads of the checker.", min=1)] = os.cpu_count() or 1,
    only: Annotated[str | None, typer.Option(help="One configuration of spec/, or one planted mistake.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The small configurations only; every mistake.")] = False,
) -> None:
    """Check everything in spec/ exhaustively, then show that each planted mistake is found. Exit code 1 if not."""
    if context.invoked_subcommand is not None:
        return
    fetch()
    began_at = time.monotonic()
    names = [name for name in (proofs.QUICK if quick else proofs.PROOFS) if only in (None, name)]
    planted = [one for one in proofs.PLANTED if only in (None, one.flaw)]
    if not names and not planted:
        raise typer.BadParameter(f"there is no {only}", param_hint="--only")
    good = [_prove(name, workers) for name in names] + [_find(one, workers) for one in planted]
    left_out = [name for name in proofs.PROOFS if quick and name not in proofs.QUICK]
    if left_out:
        console.print(f"Left out, as --quick says: {', '.join(left_out)}")
    console.print(f"{good.count(True)} passed, {good.count(False)} failed in {time.monotonic() - began_at:.0f} s")
    raise typer.Exit(0 if all(good) else 1)


def _prove(name: str, workers: int) -> bool:
    result = proofs.prove(name, workers=workers)
    verdict = "holds" if result.violated is None else f"[red]{result.violated} is broken"
    size = f"{result.distinct:>9,} states, {result.depth:2} deep"
    took = f"{result.seconds:5.1f} s ({result.cpu_s:.0f} s CPU)"
    console.print(f"[bold]{name:16}[/] {verdict}  {size}  {took}", end="  ")
    console.print(proofs.scope_of(name), style="dim", markup=False)
    if result.violated is not None:
        console.print(result.output, markup=False, highlight=False)
        console.print(f"In short: {' > '.join(result.steps)}")
    return result.violated is None


def _find(planted: proofs.Planted, workers: int) -> bool:
    result = proofs.find(planted, workers=workers)
    verdict = f"found by {result.violated} in {len(result.steps)} steps" if result.violated else "[red]NOT FOUND"
    console.print(f"[bold]{planted.flaw:26}[/] {verdict}  {result.seconds:.1f} s", end="  ")
    console.print(planted.mistake, style="dim", markup=False)
    return result.violated is not None


@app.command()
def record(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    data_dir: Annotated[Path | None, typer.Option(help="The running instance's data directory.")] = None,
) -> None:
    """Write the histories of all payments of a running instance to a file."""
    count = asyncio.run(record_histories(database_url=owner_url(data_dir), path=path))
    console.print(f"{count} payments in {path}")


@app.command()
def check(path: Annotated[Path, typer.Argument(help="A file that `record` wrote.")]) -> None:
    """Tell which recorded payments are no behaviour of the model. Exit code 1 if there are any."""
    violations = check_histories(path)
    table = Table("payments", "for example", "what")
    for violation in violations:
        table.add_row(str(violation.count), violation.payment_ids[0], violation.what)
    console.print(table if violations else "Every recorded payment is a behaviour of the model.")
    raise typer.Exit(1 if violations else 0)


def main() -> None:
    """Run the command; a missing tool or an unreadable specification is told without a traceback."""
    try:
        app()
    except (ToolMissing, CheckFailed) as error:
        console.print(str(error), markup=False, highlight=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
