"""What `up` prints: a tick for each part as it answers, then the table and the address."""

from __future__ import annotations

import sys
import time
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from payflow.run.supervisor.status import InstanceStatus

_FILE_WIDTH: Final = 160


def make_console(*, to_stderr: bool = False) -> Console:
    """A console that never fails on a terminal without Unicode and never guesses at markup in messages."""
    stream = sys.stderr if to_stderr else sys.stdout
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="replace")
    # A file or a pipe has no width; what it gets should not be cut at 80.
    width = None if stream.isatty() else _FILE_WIDTH
    return Console(stderr=to_stderr, highlight=False, markup=False, soft_wrap=True, width=width)


class Progress:
    """Prints the start as it happens."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._began_at = time.monotonic()

    def tick(self, what: str, detail: str = "") -> None:
        """One more part is ready."""
        line = Text("  ✓ ", style="green").append(f"{what:<14}", style="default").append(detail, style="dim")
        line.append(f"  {self.seconds:.1f} s", style="dim")
        self.console.print(line)

    def tell(self, message: str) -> None:
        """Something that the user should know, such as a restart."""
        self.console.print(Text(f"{time.strftime('%H:%M:%S')}  {message}", style="yellow"))

    def warn(self, message: str) -> None:
        """Something that the user must not overlook."""
        self.console.print(Text(message, style="bold red"))

    @property
    def seconds(self) -> float:
        """Since the start began."""
        return time.monotonic() - self._began_at


def print_table(console: Console, status: InstanceStatus) -> None:
    """Every process with its address, health and pid, and the public address below."""
    table = Table(title=None, header_style="bold")
    table.add_column("service", no_wrap=True)
    table.add_column("URL", overflow="fold")
    table.add_column("health", no_wrap=True)
    table.add_column("pid", justify="right", no_wrap=True)
    for process in status.processes:
        style = "green" if process.state == "healthy" else "yellow"
        table.add_row(process.name, process.url, Text(process.state, style=style), str(process.pid or "-"))
    console.print(table)
    console.print(Text("Payflow is ready at ").append(status.public_url, style="bold cyan"))


def fail(message: str) -> None:
    """The one line of an error, in red, on standard error."""
    make_console(to_stderr=True).print(Text(message, style="bold red"))
