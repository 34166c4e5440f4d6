"""How the story looks: numbered steps, each request with its answer, and tables."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from payflow.run.story.client import Reply
from payflow.run.supervisor.console import make_console

Balances = dict[str, tuple[str, Decimal]]


class Screen:
    """Prints the story."""

    def __init__(self) -> None:
        self._console = make_console()
        self._steps = 0

    def title(self, text: str, below: str) -> None:
        """The story's name."""
        self._console.print(Panel.fit(Text(text, style="bold cyan"), subtitle=below, border_style="cyan"))

    def step(self, what: str) -> None:
        """A new step."""
        self._steps += 1
        self._console.print()
        self._console.print(Text(f"{self._steps:>2}  ", style="bold cyan").append(what, style="bold"))

    def answer(self, reply: Reply, shown: Sequence[str]) -> None:
        """A request, its status, and these members of its answer."""
        style = "green" if reply.status < 300 else "yellow"
        line = Text("    ").append(f"{reply.method} {reply.path}", style="dim").append(f"  {reply.status}", style=style)
        document = reply.json
        for name in shown:
            if document.get(name) is not None:
                line.append(f"  {name}=", style="dim").append(str(document[name]), style=style)
        self._console.print(line)

    def note(self, text: str) -> None:
        """What to see in it."""
        self._console.print(Text(f"    {text}"))

    def good(self, text: str) -> None:
        """Something that was checked."""
        self._console.print(Text("    ✓ ", style="green").append(text, style="default"))

    def balances(self, before: Balances, after: Balances | None = None) -> None:
        """Accounts with what is available, and with the difference where there is an after."""
        table = Table(header_style="bold", box=None, pad_edge=False)
        table.add_column("    account")
        table.add_column("before" if after else "available", justify="right")
        if after:
            table.add_column("after", justify="right")
            table.add_column("change", justify="right")
        for number, (currency, amount) in before.items():
            row = [f"    {number}", f"{amount:,} {currency}"]
            if after:
                change = after[number][1] - amount
                style = "green" if change > 0 else "red" if change < 0 else "dim"
                row.append(f"{after[number][1]:,} {currency}")
                table.add_row(*row, Text(f"{change:+,}", style=style))
            else:
                table.add_row(*row)
        self._console.print(table)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Any other table."""
        table = Table(header_style="bold", box=None, pad_edge=False)
        for number, column in enumerate(columns):
            table.add_column(f"    {column}" if number == 0 else column)
        for row in rows:
            table.add_row(*(f"    {cell}" if number == 0 else str(cell) for number, cell in enumerate(row)))
        self._console.print(table)

    def end(self, text: str) -> None:
        """The last line."""
        self._console.print()
        self._console.print(Text(text, style="bold green"))
