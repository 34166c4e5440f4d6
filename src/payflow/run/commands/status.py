"""`payflow status`: every process, asked now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.instance import make_instance
from payflow.run.options import DataDir

if TYPE_CHECKING:
    from payflow.run.inspection import ProcessReport

NOT_RUNNING = 3


def status(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show every process: name, pid, address, health, restarts. Exit code 0 all healthy, 1 not all, 3 not running."""
    from payflow.run import inspection
    from payflow.run.control import none_runs_on, running

    instance = make_instance(data_dir=data_dir)
    found = running(instance)
    if found is None:
        if as_json:
            print(json.dumps({"state": "stopped", "data_dir": str(instance.data_dir), "processes": []}))
        else:
            print(none_runs_on(instance))
        raise typer.Exit(NOT_RUNNING)
    reports = inspection.inspect_instance(found)
    if as_json:
        print(json.dumps(inspection.as_json(found, reports), indent=2))
    else:
        _print_table(reports)
        print(f"{found.state} at {found.public_url}, data in {found.data_dir}")
    if any(report.health != "healthy" for report in reports):
        raise typer.Exit(1)


def _print_table(reports: list[ProcessReport]) -> None:
    from rich.table import Table
    from rich.text import Text

    from payflow.run.supervisor.console import make_console

    table = Table(header_style="bold")
    table.add_column("name", no_wrap=True)
    table.add_column("pid", justify="right", no_wrap=True)
    table.add_column("URL", overflow="fold")
    table.add_column("health", no_wrap=True)
    table.add_column("restarts", justify="right")
    table.add_column("PSS MB", justify="right")
    for report in reports:
        colour = "green" if report.health == "healthy" else "red"
        memory = "-" if report.pss_kb is None else f"{report.pss_kb / 1024:.0f}"
        health = Text(report.health, style=colour)
        table.add_row(report.name, str(report.pid or "-"), report.url, health, str(report.restarts), memory)
    make_console().print(table)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(status)
