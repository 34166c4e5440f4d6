"""`payflow load`: customers, accounts and users in bulk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.options import DataDir

if TYPE_CHECKING:
    from payflow.run.instance import Instance
    from payflow.run.loading import LoadReport, Source

DIFFERENT = 4
_SHOWN = 20


def load(
    file: Annotated[Path, typer.Argument(help="CSV (with a header row) or JSON Lines; each record has a `type`.")],
    data_dir: DataDir = None,
) -> None:
    """Load customers, verifications, accounts and users from a file; safe to repeat.

    Exit code 0: all of it is there. 1: a record was refused, or the file cannot be read and nothing was loaded.
    3: no instance runs. 4: all of it is there, but an account began with another balance than the file says.
    """
    from functools import partial

    from payflow.run.errors import StartError
    from payflow.run.local_rpc import reachable_instance
    from payflow.run.records import read_records, rereadable

    instance = reachable_instance(data_dir)
    with rereadable(file) as path:
        source = partial(read_records, path, name=str(file))
        # All of it is read before anything is loaded, so that a mistyped line does not leave half a file behind.
        total = sum(1 for _ in source())
        if total == 0:
            raise StartError(f"{file} holds no records: nothing was loaded.")
        report = asyncio.run(_load(instance, source, total))
    for kind, count in sorted(report.loaded.items()):
        print(f"{count} {kind}{'s' if count != 1 else ''} loaded")
    if report.warned:
        print(f"Other than the file says ({report.warned}):\n  {_listed(report.warnings, report.warned)}")
    if report.refused:
        shown = _listed(report.failures, report.refused)
        raise StartError(f"{report.refused} of {total} records were not loaded:\n  {shown}")
    if report.warned:
        raise typer.Exit(DIFFERENT)


async def _load(instance: Instance, source: Source, total: int) -> LoadReport:
    from datetime import UTC, datetime

    from rich.progress import Progress

    from payflow.run.loading import load_source
    from payflow.run.local_rpc import local_services

    with Progress() as bar:
        task = bar.add_task("loading", total=total)
        async with local_services(instance) as services:
            return await load_source(
                source=source,
                services=services,
                progress=lambda _, count: bar.advance(task, count),
                began_at=datetime.now(UTC),
            )


def _listed(lines: list[str], count: int) -> str:
    shown = lines[:_SHOWN]
    return "\n  ".join([*shown, f"and {count - len(shown)} more"] if count > len(shown) else shown)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(load)
