"""`payflow verify`: everything that must never break, checked on a running system."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.options import DataDir

if TYPE_CHECKING:
    from payflow.run.invariants.check import Finding

RULES_BROKEN = 1


def verify(
    quiet_within: Annotated[
        float, typer.Option("--quiet-within", help="Seconds for which something may be under way.", min=0)
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Check every rule of the system over one snapshot; safe while payments are made. Exit code 1: a rule is broken."""
    import msgspec

    findings = find(data_dir, quiet_within=timedelta(seconds=quiet_within), is_quiet=as_json)
    if as_json:
        print(msgspec.json.encode(findings).decode())
    else:
        _print(findings)
    if not all(finding.is_kept for finding in findings):
        raise typer.Exit(RULES_BROKEN)


def find(data_dir: Path | None, *, quiet_within: timedelta, is_quiet: bool) -> list[Finding]:
    """Check the database and what only the services can tell. Raises StartError when either cannot be reached."""
    import asyncpg
    from rich.progress import Progress

    from payflow.run.inspection import owner_url
    from payflow.run.invariants.catalog import RULES
    from payflow.run.invariants.check import check_database
    from payflow.run.invariants.services import check_services

    url = owner_url(data_dir)

    async def run() -> list[Finding]:
        with Progress(transient=True, disable=is_quiet) as progress:
            task = progress.add_task("checking", total=len(RULES) + 2)

            def tick(rule: object) -> None:
                progress.update(task, advance=1, description=str(getattr(rule, "words", rule)))

            found = await check_database(url, quiet_within=quiet_within, tick=tick)
            tick("the audit trail's hashes and signed heads; revoked tokens")
            return found + await check_services(url, data_dir)

    try:
        return asyncio.run(run())
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"The database cannot be checked: {error}") from error


def _print(findings: list[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from payflow.run.supervisor.console import make_console

    table = Table(header_style="bold")
    for name, justify in (("about", "left"), ("rule", "left"), ("checked", "right"), ("", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type] # rich wants a Literal.
    for finding in findings:
        verdict = Text("kept", "green") if finding.is_kept else Text(f"broken: {finding.broken:,}", "bold red")
        if finding.waiting:
            verdict.append(f" ({finding.waiting:,} under way)", "default")
        rule = "\n".join([finding.words, *(f"  {example}" for example in finding.examples)])
        table.add_row(finding.area, Text(rule), f"{finding.checked:,}", verdict)
    console = make_console()
    console.print(table)
    broken = sum(not finding.is_kept for finding in findings)
    console.print(
        f"{broken} of {len(findings)} rules are broken." if broken else f"All {len(findings)} rules are kept."
    )


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("verify")(verify)
