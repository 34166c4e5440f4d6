"""`payflow audit`: read the audit trail, and prove that nobody altered it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar

import typer

from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.options import DataDir

if TYPE_CHECKING:
    from payflow.contracts.audit import Audit, AuditPage, AuditRow, AuditVerified, SearchAudit

T = TypeVar("T")

PROBLEMS_FOUND = 1
_EXPORT_PAGE = 200

Subject: TypeAlias = Annotated[str | None, typer.Option("--subject", help="A payment id or a customer id.")]
Type: TypeAlias = Annotated[str | None, typer.Option("--type", help="A type of event, e.g. payment.completed.")]

audit = typer.Typer(no_args_is_help=True, help="Read the audit trail, and prove that nobody altered it.")


@audit.command()
def verify(
    from_sequence: Annotated[int, typer.Option("--from", help="Begin with this row.", min=1)] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Recompute the whole chain and compare it with every signed head. Exit code 0 whole, 1 altered."""
    import msgspec

    from payflow.contracts.audit import VerifyAudit

    async def ask(client: Audit) -> AuditVerified:
        (answer,) = await client.verify([VerifyAudit(from_sequence=from_sequence)])
        return _result(answer)

    verified = _with_client(data_dir, ask)
    if as_json:
        print(msgspec.json.encode(verified).decode())
    else:
        _print_verified(verified)
    if verified.problems:
        raise typer.Exit(PROBLEMS_FOUND)


@audit.command()
def search(
    subject: Subject = None,
    type: Type = None,
    limit: Annotated[int, typer.Option("--limit", help="So many rows.", min=1, max=200)] = 50,
    cursor: Annotated[int | None, typer.Option("--cursor", help="Go on behind this row.")] = None,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="In the order in which it happened.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Show rows, newest first."""
    import msgspec

    from payflow.contracts.audit import SearchAudit

    query = SearchAudit(subject=subject, type=type, limit=limit, cursor=cursor, oldest_first=oldest_first)

    async def ask(client: Audit) -> AuditPage:
        return await _page(client, query)

    page = _with_client(data_dir, ask)
    if as_json:
        print(msgspec.json.encode(page).decode())
    else:
        _print_rows(page)


@audit.command()
def export(subject: Subject = None, type: Type = None, data_dir: DataDir = None) -> None:
    """Write all rows to standard output, oldest first, as one JSON object a line."""
    import msgspec

    from payflow.contracts.audit import SearchAudit

    async def ask(client: Audit) -> None:
        cursor: int | None = 0
        while cursor is not None:
            query = SearchAudit(subject=subject, type=type, cursor=cursor, limit=_EXPORT_PAGE, oldest_first=True)
            page = await _page(client, query)
            for row in page.rows:
                print(msgspec.json.encode(row).decode())
            cursor = page.next_cursor

    _with_client(data_dir, ask)


async def _page(client: Audit, query: SearchAudit) -> AuditPage:
    (answer,) = await client.search([query])
    return _result(answer)


def _result(answer: T | Exception) -> T:
    """The answer's value. Raises StartError where the service refused or did not answer."""
    if isinstance(answer, Exception):
        raise StartError(f"The audit service gave no answer: {answer or type(answer).__name__}")
    return answer


def _with_client(data_dir: Path | None, ask: Callable[[Audit], Awaitable[T]]) -> T:
    """Run `ask` with a client of the audit service. Raises StartError when it cannot be reached or is not for us."""
    from payflow.contracts.audit import Audit
    from payflow.platform.rpc import RpcClients
    from payflow.platform.rpc.identity import Signer
    from payflow.run.secrets import COMMAND_LINE

    url, keys_dir = _address(data_dir)
    try:
        signer = Signer.load(service=COMMAND_LINE, directory=keys_dir)
    except OSError as error:
        raise StartError(f"The command line's key in {keys_dir} cannot be read: {error.strerror}.") from None

    async def run() -> T:
        clients = RpcClients(signer=signer, queue_max=100)
        try:
            return await ask(clients.connect(Audit, url))
        finally:
            await clients.close()

    return asyncio.run(run())


def _address(data_dir: Path | None) -> tuple[str, Path]:
    """Where the audit service is and where our key is: as the settings say, else those of the running instance."""
    url, keys_dir = os.environ.get("PAYFLOW_AUDIT_URL"), os.environ.get("PAYFLOW_SERVICE_KEYS_DIR")
    if url and keys_dir:
        return url, Path(keys_dir)
    from payflow.run.control import require_running
    from payflow.run.registry import find
    from payflow.run.secrets import service_keys_dir

    instance = require_running(make_instance(data_dir=data_dir)).instance
    row = find("audit")
    assert row is not None
    return url or instance.service_url(row), service_keys_dir(instance)


def _print_verified(verified: AuditVerified) -> None:
    from rich.text import Text

    from payflow.run.supervisor.console import make_console

    console = make_console()
    checked = f"{verified.rows:,} rows and {verified.heads:,} signed heads checked, last row {verified.last_sequence:,}"
    if verified.events_set_aside:
        told = f"! events set aside, unhandled or forged: {verified.events_set_aside:,} (see payflow events dlq)"
        console.print(Text(told, style="yellow"))
    if not verified.problems:
        console.print(Text("✓ ", style="green").append(f"{checked}: the chain is whole.", style="default"))
        console.print(Text(f"  last hash {verified.last_hash}", style="dim"))
        return
    console.print(Text(f"✗ {checked}: the chain was altered.", style="bold red"))
    for problem in verified.problems:
        console.print(Text(f"  {problem}"))


def _print_rows(page: AuditPage) -> None:
    from rich.table import Table

    from payflow.run.supervisor.console import make_console

    console = make_console()
    table = Table(header_style="bold")
    table.add_column("row", justify="right", no_wrap=True)
    table.add_column("happened at (UTC)", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("subject", overflow="fold")
    table.add_column("data", overflow="fold")
    for row in page.rows:
        table.add_row(*_cells(row))
    console.print(table)
    if page.next_cursor is not None:
        console.print(f"There are more: --cursor {page.next_cursor}")


def _cells(row: AuditRow) -> tuple[str, ...]:
    """A row's texts as JSON writes them, so that none can send control characters to the terminal."""
    import msgspec

    happened_at = row.occurred_at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    subject = msgspec.json.encode(row.subject).decode()[1:-1]
    told = {name: value for name, value in row.data.items() if value not in (None, row.subject)}
    return str(row.sequence), happened_at, row.type, subject, msgspec.json.encode(told).decode()


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(audit, name="audit")
