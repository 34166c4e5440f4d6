"""`payflow down`: stop everything, keep the data."""

from __future__ import annotations

import typer

from payflow.run.instance import make_instance
from payflow.run.options import DataDir


def down(data_dir: DataDir = None) -> None:
    """Stop the instance and all its processes; its data stays."""
    from payflow.run.control import stop

    instance = make_instance(data_dir=data_dir)
    seconds = stop(instance)
    if seconds is None:
        print(f"Nothing runs on {instance.data_dir}.")
    else:
        print(f"Stopped in {seconds:.1f} s.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(down)
