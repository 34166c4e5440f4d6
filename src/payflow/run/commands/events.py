"""`payflow events`: what consumers could not handle, and handing it to them again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from uuid import UUID

import typer

from payflow.run.errors import StartError
from payflow.run.options import DataDir

if TYPE_CHECKING:
    import asyncpg

    from payflow.platform.eventlog.dead_letters import DeadLetter

T = TypeVar("T")

events = typer.Typer(no_args_is_help=True, help="The event log: what could not be handled.")


@events.command()
def dlq(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """List the events that consumers set aside (the dead letters), oldest first, and why."""
    import msgspec

    from payflow.platform.eventlog.dead_letters import list_dead_letters

    letters = _as_owner(data_dir, list_dead_letters)
    if as_json:
        print(msgspec.json.encode(letters).decode())
    elif letters:
        _print_letters(letters)
    else:
        print("No event is set aside.")


@events.command()
def replay(
    consumer: Annotated[str, typer.Argument(help="The consumer, e.g. notification.")],
    event_id: Annotated[str | None, typer.Argument(help="The event's id, as `payflow events dlq` shows it.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Every event that this consumer set aside.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Hand an event that was set aside to its consumer again; it stays set aside if it fails again or is forged."""
    from payflow.platform.eventlog.dead_letters import request_replay

    if (event_id is None) is not is_all:
        raise StartError("Name one event, or say --all.")
    wanted = None if event_id is None else _as_id(event_id)

    async def ask(connection: asyncpg.Connection[Any]) -> int:
        return await request_replay(connection, consumer=consumer, event_id=wanted)

    count = _as_owner(data_dir, ask)
    if count == 0:
        raise StartError(f"{consumer} has set aside no such event: see `payflow events dlq`.")
    print(f"{count} event{'' if count == 1 else 's'} will be handed to {consumer} again as soon as it runs.")


def _as_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise StartError(f"{text!r} is not an event's id.") from None


def _as_owner(data_dir: Path | None, ask: Callable[[asyncpg.Connection[Any]], Awaitable[T]]) -> T:
    """Run `ask` with a connection as the database's owner. Raises StartError when there is none."""
    import asyncpg

    from payflow.run.inspection import owner_url

    url = owner_url(data_dir)

    async def run() -> T:
        connection = await asyncpg.connect(url, timeout=10)
        try:
            return await ask(connection)
        finally:
            await connection.close()

    try:
        return asyncio.run(run())
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"The event log cannot be reached: {error}") from error


def _print_letters(letters: list[DeadLetter]) -> None:
    from rich.table import Table

    from payflow.run.supervisor.console import make_console

    table = Table(header_style="bold")
    for name in ("consumer", "event"):
        table.add_column(name, no_wrap=True)
    for name in ("type", "written by", "set aside at (UTC)", "why"):
        table.add_column(name, overflow="fold")
    for letter in letters:
        table.add_row(*_cells(letter))
    make_console().print(table)
    print("Hand them to their consumer again: payflow events replay CONSUMER EVENT_ID, or --all.")


def _cells(letter: DeadLetter) -> tuple[str, ...]:
    """A dead letter's texts as JSON writes them, so that none can send control characters to the terminal."""
    import msgspec
    from rich.markup import escape

    failed_at = letter.failed_at.strftime("%Y-%m-%d %H:%M:%S")
    texts = (", ".join(letter.types) or "unreadable", letter.source, failed_at, letter.cause)
    safe = (escape(msgspec.json.encode(text).decode()[1:-1]) for text in texts)
    waiting = "" if letter.replay_requested_at is None else " (replay asked for)"
    return letter.consumer, f"{letter.event_id}{waiting}", *safe


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(events, name="events")
