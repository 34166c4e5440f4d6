"""`payflow stuck`: what needs a person, or has outlived its deadline."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.options import DataDir

if TYPE_CHECKING:
    from payflow.run.invariants.stuck import Stuck

SOMETHING_IS_STUCK = 1


def stuck(
    overdue_after: Annotated[
        float, typer.Option("--overdue-after", help="Seconds past its deadline before something counts.", min=0)
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """List what does not go on by itself, since when, and what to do about it. Exit code 1 when there is something."""
    import asyncpg
    import msgspec

    from payflow.run.inspection import owner_url
    from payflow.run.invariants.stuck import find_stuck

    try:
        found = asyncio.run(find_stuck(owner_url(data_dir), overdue_after=timedelta(seconds=overdue_after)))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"The database cannot be asked: {error}") from error
    if as_json:
        print(msgspec.json.encode(found).decode())
    elif found:
        _print(found)
    else:
        print("Nothing is stuck: every payment, review, event and message has its next step to come.")
    if found:
        raise typer.Exit(SOMETHING_IS_STUCK)


def _print(found: list[Stuck]) -> None:
    from rich.markup import escape
    from rich.table import Table

    from payflow.run.supervisor.console import make_console

    table = Table(header_style="bold")
    table.add_column("what", no_wrap=True)
    table.add_column("since (UTC)", no_wrap=True)
    for name in ("why", "what to do"):
        table.add_column(name, overflow="fold")
    for one in found:
        table.add_row(one.what, f"{one.since:%Y-%m-%d %H:%M:%S}", escape(one.why), escape(one.to_do))
    make_console().print(table)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("stuck")(stuck)
