"""`payflow ledger verify`: recompute the ledger from its postings."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from payflow.run.errors import StartError
from payflow.run.options import DataDir

if TYPE_CHECKING:
    from payflow.contracts.account import LedgerVerified

LEDGER_BROKEN = 1


def verify(data_dir: DataDir = None) -> None:
    """Recompute every balance, hold and entry from the postings, in one snapshot; safe while payments are made.

    Exit code 1 when anything does not add up, with the accounts and entries named.
    """
    found, seconds = recompute(data_dir)
    _print(found, seconds)
    if found.broken:
        raise typer.Exit(LEDGER_BROKEN)


def recompute(data_dir: Path | None) -> tuple[LedgerVerified, float]:
    """Verify the ledger as the database's owner, with a progress bar; the result, and how many seconds it took.

    Raises StartError when the database cannot be reached.
    """
    import time

    import asyncpg
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    from payflow.platform.servers import Connector
    from payflow.run.inspection import owner_url
    from payflow.run.supervisor.console import make_console
    from payflow.services.account.verification import verify_ledger

    url = owner_url(data_dir)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())

    async def run() -> LedgerVerified:
        connection = await Connector(url)(timeout=10, server_settings={"search_path": "account"})
        try:
            with Progress(*columns, console=make_console(), transient=True) as progress:
                tasks: dict[str, TaskID] = {}

                def tick(what: str, done: int, everything: int) -> None:
                    if what not in tasks:
                        tasks[what] = progress.add_task(what)
                    progress.update(tasks[what], completed=done, total=everything)

                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    return await verify_ledger(connection, tick=tick)
        finally:
            await connection.close(timeout=5)

    began_at = time.monotonic()
    try:
        return asyncio.run(run()), time.monotonic() - began_at
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"The ledger could not be verified: {error}") from error


def _print(found: LedgerVerified, seconds: float) -> None:
    from rich.table import Table
    from rich.text import Text

    from payflow.run.supervisor.console import make_console

    console = make_console()
    table = Table(header_style="bold")
    for name in ("accounts", "journal entries", "postings", "open holds", "seconds", "broken"):
        table.add_column(name, justify="right")
    counts = (found.accounts, found.entries, found.postings, found.open_holds)
    broken = Text(f"{len(found.broken):,}", style="bold red" if found.broken else "green")
    table.add_row(*(f"{count:,}" for count in counts), f"{seconds:,.1f}", broken)
    console.print(table)
    for line in found.broken:
        console.print(Text(f"  {line}", style="red"))
    console.print(
        "The ledger is broken."
        if found.broken
        else "The ledger is whole: every entry balances, and every balance is the sum of its postings."
    )


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    ledger = typer.Typer(no_args_is_help=True, help="The double-entry ledger.")

    @ledger.callback()
    def group() -> None:
        """The double-entry ledger."""

    ledger.command("verify")(verify)
    app.add_typer(ledger, name="ledger")
