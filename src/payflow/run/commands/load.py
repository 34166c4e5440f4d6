"""`payflow load`: customers, accounts and users in bulk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from payflow.run.instance import make_instance
from payflow.run.options import DataDir


def load(
    file: Annotated[Path, typer.Argument(help="CSV (with a header row) or JSON Lines; each record has a `type`.")],
    data_dir: DataDir = None,
) -> None:
    """Load customers, verifications, accounts and users from a file; safe to repeat."""
    from rich.progress import Progress

    from payflow.run.control import require_running
    from payflow.run.errors import StartError
    from payflow.run.loading import LoadReport, load_records, read_records
    from payflow.run.local_rpc import local_services

    instance = require_running(make_instance(data_dir=data_dir)).instance
    records = read_records(file)

    async def run() -> LoadReport:
        with Progress() as bar:
            task = bar.add_task("loading", total=len(records))
            async with local_services(instance) as services:
                return await load_records(
                    records=records, services=services, progress=lambda _, count: bar.advance(task, count)
                )

    report = asyncio.run(run())
    for kind, count in sorted(report.loaded.items()):
        print(f"{count} {kind}{'s' if count != 1 else ''} loaded")
    if report.failures:
        shown = "\n  ".join(report.failures[:20])
        raise StartError(f"{len(report.failures)} of {len(records)} records were not loaded:\n  {shown}")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(load)
