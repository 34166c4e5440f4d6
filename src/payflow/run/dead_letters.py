"""`payflow events dlq`: the events that consumers set aside: look at them, retry them, discard them for a reason."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from payflow.run.errors import StartError
from payflow.run.inspection import as_owner
from payflow.run.options import DataDir

if TYPE_CHECKING:
    import asyncpg

    from payflow.platform.eventlog.dead_letters import DeadLetter

dlq = typer.Typer(help="The dead letters: events that consumers set aside.")


@dlq.callback(invoke_without_command=True)
def list_letters(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, for programs.")] = False,
    with_discarded: Annotated[bool, typer.Option("--discarded", help="Also those that were given up.")] = False,
    data_dir: DataDir = None,
) -> None:
    """List the events that consumers set aside (the dead letters), oldest first, and why."""
    if context.invoked_subcommand is not None:
        return
    import msgspec

    from payflow.platform.eventlog.dead_letters import list_dead_letters

    letters = as_owner(data_dir, lambda connection: list_dead_letters(connection, with_discarded=with_discarded))
    if as_json:
        print(msgspec.json.encode(letters).decode())
    elif letters:
        _print_letters(letters)
    else:
        print("No event is set aside.")


@dlq.command()
def show(
    event_id: Annotated[str, typer.Argument(help="The event's id, as `payflow events dlq` shows it.")],
    data_dir: DataDir = None,
) -> None:
    """Show all of an event that was set aside, as JSON; once for each consumer that could not handle it."""
    import msgspec

    from payflow.platform.eventlog.dead_letters import list_dead_letters

    wanted = _as_id(event_id)
    letters = as_owner(data_dir, lambda connection: list_dead_letters(connection, event_id=wanted, with_discarded=True))
    if not letters:
        raise StartError(f"{event_id} was not set aside: see `payflow events dlq`.")
    for letter in letters:
        print(msgspec.json.format(msgspec.json.encode(letter), indent=2).decode())


@dlq.command()
def retry(
    consumer: Annotated[str, typer.Argument(help="The consumer, e.g. notification.")],
    event_id: Annotated[str | None, typer.Argument(help="The event's id, as `payflow events dlq` shows it.")] = None,
    is_all: Annotated[bool, typer.Option("--all", help="Every event that this consumer set aside.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Hand an event that was set aside to its consumer again; it stays set aside if it fails again or is forged."""
    from payflow.platform.eventlog.dead_letters import request_retry

    if (event_id is None) is not is_all:
        raise StartError("Name one event, or say --all.")
    wanted = None if event_id is None else _as_id(event_id)

    async def ask(connection: asyncpg.Connection[Any]) -> int:
        return await request_retry(connection, consumer=consumer, event_id=wanted)

    count = as_owner(data_dir, ask)
    if count == 0:
        raise StartError(f"{consumer} has set aside no such event: see `payflow events dlq`.")
    print(f"{count} event{'' if count == 1 else 's'} will be handed to {consumer} again as soon as it runs.")


@dlq.command()
def discard(
    consumer: Annotated[str, typer.Argument(help="The consumer, e.g. notification.")],
    event_id: Annotated[str, typer.Argument(help="The event's id, as `payflow events dlq` shows it.")],
    reason: Annotated[str, typer.Option(help="Why it will never be handled; kept with it.")],
    data_dir: DataDir = None,
) -> None:
    """Give up an event that was set aside. It is kept, with the reason and your name, and not told of any more."""
    from payflow.platform.eventlog.dead_letters import discard as give_up

    if not reason.strip():
        raise StartError("--reason: say why, for whoever asks later.")
    wanted, by = _as_id(event_id), getpass.getuser()

    async def ask(connection: asyncpg.Connection[Any]) -> bool:
        return await give_up(connection, consumer=consumer, event_id=wanted, reason=reason.strip(), by=by)

    if not as_owner(data_dir, ask):
        raise StartError(f"{consumer} has set aside no such event: see `payflow events dlq`.")
    print(f"{event_id} is given up for {consumer}. `payflow events dlq --discarded` still shows it.")


def _as_id(text: str) -> UUID:
    try:
        return UUID(text)
    except ValueError:
        raise StartError(f"{text!r} is not an event's id.") from None


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
    print("Look at one: payflow events dlq show EVENT_ID. Hand them to their consumer again: payflow events dlq retry")
    print("CONSUMER EVENT_ID, or --all. Give one up: payflow events dlq discard CONSUMER EVENT_ID --reason ...")


def _cells(letter: DeadLetter) -> tuple[str, ...]:
    """A dead letter's texts as JSON writes them, so that none can send control characters to the terminal."""
    import msgspec
    from rich.markup import escape

    failed_at = letter.failed_at.strftime("%Y-%m-%d %H:%M:%S")
    why = letter.cause
    if letter.discard_reason is not None:
        why = f"given up by {letter.discarded_by}: {letter.discard_reason} ({letter.cause})"
    texts = (", ".join(letter.types) or "unreadable", letter.source, failed_at, why)
    safe = (escape(msgspec.json.encode(text).decode()[1:-1]) for text in texts)
    waiting = "" if letter.replay_requested_at is None else " (retry asked for)"
    return letter.consumer, f"{letter.event_id}{waiting}", *safe
