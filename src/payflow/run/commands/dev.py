"""`payflow dev`: what a developer needs beside the product. Part of the repository, not of the package."""

from __future__ import annotations

from typing import Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.options import DataDir, PortBase
from payflow.run.registry import PORT_BASE

dev = typer.Typer(no_args_is_help=True, help="Servers for development.")


@dev.callback()
def group() -> None:
    """Servers for development."""


@dev.command()
def kafka(
    nodes: Annotated[int, typer.Option(help="How many: 1, or 3 with three copies of everything.")] = 1,
    port_base: PortBase = PORT_BASE,
    data_dir: DataDir = None,
    only_fetch: Annotated[bool, typer.Option("--fetch", help="Only fetch the jars.")] = False,
) -> None:
    """Run a real Kafka in the foreground until Ctrl-C; prints the settings by which services use it."""
    try:
        from payflow_dev.kafka import command
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError("A Kafka to try is part of the repository: run this from a clone of it.") from None
    if nodes not in (1, 3):
        raise StartError("--nodes: choose 1 or 3.")
    if only_fetch:
        print(f"Kafka's jars are in {command.fetch_only()}.")
        return
    command.run(instance=make_instance(data_dir=data_dir, port_base=port_base), count=nodes)


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(dev, name="dev")
