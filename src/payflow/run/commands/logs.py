"""`payflow logs`: what the processes wrote."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance
from payflow.run.options import DataDir
from payflow.run.payment_lines import PaymentLines, Told
from payflow.run.registry import SERVICES, find

_POLL_S = 0.2
_TAIL_BYTES = 256 * 1024
_WHAT_LINES_NAME = (
    ": give a transaction_id, a payment_id or a trace_id. Requests that were refused for their rate (429, 503"
    " OVERLOADED) leave no line, and old lines are gone."
)
_NAME_WIDTH = max(len(row.name) for row in SERVICES)


def logs(
    service: Annotated[str | None, typer.Argument(help="Only this one, e.g. risk or postgres.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines until Ctrl-C.")] = False,
    lines: Annotated[
        int | None,
        typer.Option(
            "-n", "--lines", help="So many of the last lines of each. [default: 50; all of a payment's]", min=0
        ),
    ] = None,
    payment: Annotated[
        str | None,
        typer.Option(
            "--payment", help="Only what is about this payment, over all services: payment, transaction or trace id."
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Show the logs of all processes, of one, or of one payment."""
    instance = make_instance(data_dir=data_dir)
    followed = [_Log(path) for path in _files(instance, service)]
    wanted = None if payment is None else PaymentLines(payment)
    if wanted is None:
        width = max(len(log.name) for log in followed)
        for log in followed:
            _show(log.name, log.tail(50 if lines is None else lines), width)
    else:
        found = _all_about(wanted, followed)
        if not found and not follow:
            raise StartError(f"No line names {payment}{_WHAT_LINES_NAME}")
        _show_told(found if lines is None else found[max(0, len(found) - lines) :])
    while follow:
        time.sleep(_POLL_S)
        known = {log.path for log in followed}
        followed += [_Log(path) for path in _files(instance, service) if path not in known]
        if wanted is None:
            for log in followed:
                _show(log.name, log.new_lines(), width)
        else:
            _show_told(wanted.take([line for log in followed for line in log.new_lines()]))


def _all_about(wanted: PaymentLines, logs: list[_Log]) -> list[Told]:
    """The payment's lines in these files. They are read again for as long as reading them tells of further ids."""
    while True:
        known = wanted.known
        wanted.start_over()
        found = wanted.take(line for log in logs for line in log.everything())
        if wanted.known == known:
            return found


class _Log:
    """One log file, followed by name: a rotated file is opened again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.stem
        self._file: BinaryIO | None = None
        self._rest = b""

    def tail(self, count: int) -> list[str]:
        """The last `count` lines; `new_lines` goes on behind them."""
        self._file = self.path.open("rb")
        size = self._file.seek(0, 2)
        self._file.seek(max(0, size - _TAIL_BYTES))
        found = self.new_lines()
        return found[-count:] if count else []

    def everything(self) -> Iterator[str]:
        """All complete lines, with those of the file that was put aside; `new_lines` goes on behind them."""
        aside = self.path.with_name(f"{self.path.name}.1")
        if aside.exists():
            with aside.open(encoding="utf-8", errors="replace") as file:
                yield from (line.rstrip("\n") for line in file)
        self._file, self._rest = self.path.open("rb"), b""
        for line in self._file:
            if line.endswith(b"\n"):
                yield line[:-1].decode("utf-8", "replace")
            else:
                self._rest = line

    def new_lines(self) -> list[str]:
        """The complete lines that were written since the last call."""
        if self._file is None or self._was_rotated(self._file):
            self._file = self.path.open("rb")
        *found, self._rest = (self._rest + self._file.read()).split(b"\n")
        return [line.decode("utf-8", "replace") for line in found]

    def _was_rotated(self, file: BinaryIO) -> bool:
        try:
            return self.path.stat().st_size < file.tell()
        except FileNotFoundError:
            return False


def _files(instance: Instance, service: str | None) -> list[Path]:
    found = sorted(instance.logs_dir.glob("*.log")) if instance.logs_dir.is_dir() else []
    if service is not None:
        row = find(service)
        wanted = {service, row.name} if row else {service}
        if row is not None and service == row.service:
            # `gateway` means both of them.
            prefix = f"{service.replace('_', '-')}-"
            wanted |= {path.stem for path in found if path.stem.startswith(prefix)}
        found = [path for path in found if path.stem in wanted]
    if not found:
        what = f"log of {service}" if service else "log"
        names = sorted(path.stem for path in instance.logs_dir.glob("*.log")) if instance.logs_dir.is_dir() else []
        known = f"; there are {', '.join(names)}" if names else ""
        raise StartError(f"There is no {what} in {instance.logs_dir}{known}.")
    return found


def _show(name: str, lines: Sequence[str], width: int) -> None:
    for line in lines:
        print(f"{name:<{width}} | {line}", flush=True)


def _show_told(told: Sequence[Told]) -> None:
    for one in told:
        _show(one.process, [one.line], _NAME_WIDTH)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(logs)
