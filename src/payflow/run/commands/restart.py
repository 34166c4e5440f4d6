"""`payflow restart`: new processes in place of the old ones, one after the other, while payments go on."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.options import DataDir
from payflow.run.registry import OTHER_BANK


def restart(
    services: Annotated[
        list[str] | None, typer.Argument(help="Only these, e.g. confirm, gateway (both) or gateway-2. [default: all]")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Restart services without losing a request: each new process takes requests before the old one is told to drain.

    They run the code and the settings that the instance was started with: new ones need `payflow down` and `up`.
    """
    from payflow.run import control

    instance = make_instance(data_dir=data_dir)
    status = control.require_running(instance)
    running = [process for process in status.processes if process.kind == "service"]
    wanted = [process.name for process in running if process.name != OTHER_BANK.name]
    if services:
        chosen: set[str] = set()
        for typed in services:
            # As people type it: `partner_bank` for partner-bank, and `gateway` for both of them.
            named = {one.name for one in running if typed in (one.name, one.service, one.name.replace("-", "_"))}
            if not named:
                raise StartError(f"No service {typed} runs: there are {', '.join(one.name for one in running)}.")
            chosen |= named
        wanted = [process.name for process in running if process.name in chosen]
    began_at = time.monotonic()
    for name in control.restart(status.instance, wanted):
        print(f"{name} restarted ({time.monotonic() - began_at:.1f} s)", flush=True)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(restart)
