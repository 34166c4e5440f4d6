"""`payflow logs`: what the processes wrote."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, BinaryIO

import typer

from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance
from payflow.run.options import DataDir
from payflow.run.registry import find

_POLL_S = 0.2
_TAIL_BYTES = 256 * 1024


def logs(
    service: Annotated[str | None, typer.Argument(help="Only this one, e.g. risk or postgres.")] = None,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on with new lines until Ctrl-C.")] = False,
    lines: Annotated[int, typer.Option("-n", "--lines", help="So many of the last lines of each.", min=0)] = 50,
    data_dir: DataDir = None,
) -> None:
    """Show the logs of all processes, or of one."""
    instance = make_instance(data_dir=data_dir)
    followed = [_Log(path) for path in _files(instance, service)]
    width = max(len(log.name) for log in followed)
    for log in followed:
        for line in log.tail(lines):
            _show(log, line, width)
    while follow:
        time.sleep(_POLL_S)
        known = {log.path for log in followed}
        followed += [_Log(path) for path in _files(instance, service) if path not in known]
        for log in followed:
            for line in log.new_lines():
                _show(log, line, width)


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
            wanted |= {path.stem for path in found if path.stem.startswith(f"{service}-")}
        found = [path for path in found if path.stem in wanted]
    if not found:
        what = f"log of {service}" if service else "log"
        names = sorted(path.stem for path in instance.logs_dir.glob("*.log")) if instance.logs_dir.is_dir() else []
        known = f"; there are {', '.join(names)}" if names else ""
        raise StartError(f"There is no {what} in {instance.logs_dir}{known}.")
    return found


def _show(log: _Log, line: str, width: int) -> None:
    print(f"{log.name:<{width}} | {line}", flush=True)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(logs)
