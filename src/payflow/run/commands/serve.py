"""`payflow serve`: one service in the foreground, as containers run it."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.registry import PORT_BASE, SERVICES, find, service_names


def serve(
    service: Annotated[str, typer.Argument(help="Which one, e.g. account.")],
    port: Annotated[int | None, typer.Option("--port", help="[default: $PAYFLOW_PORT, else 3000 + its number]")] = None,
    host: Annotated[str | None, typer.Option("--host", help="[default: $PAYFLOW_HOST, else 127.0.0.1]")] = None,
    instance: Annotated[str | None, typer.Option("--instance", help="The name of this process in logs.")] = None,
) -> None:
    """Run one service until SIGTERM. Its settings, the other services' addresses among them, are in the environment."""
    from payflow.platform.process import run
    from payflow.run.supervisor.sockets import listen

    row = find(service)
    if row is None:
        raise StartError(f"There is no service {service}: choose one of {', '.join(service_names(SERVICES))}.")
    text = os.environ.get("PAYFLOW_PORT", "")
    if port is None and text and not text.isdigit():
        raise StartError(f"PAYFLOW_PORT={text} is not a port: choose 1 to 65535.")
    chosen = port or int(text or PORT_BASE + row.port_offset)
    listener = listen(host=host or os.environ.get("PAYFLOW_HOST") or "127.0.0.1", port=chosen, option="--port")
    os.environ["PAYFLOW_PORT"] = str(chosen)
    run(service=row.service, instance=instance or row.service, module=row.module, sockets=[listener])


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(serve)
