"""`payflow demo-data`: the customers, accounts and users of `payflow up`, for services that run somewhere else."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.options import DataDir


def demo_data(
    if_allowed: Annotated[
        bool, typer.Option("--if-allowed", help="In production do nothing, instead of failing.")
    ] = False,
    data_dir: DataDir = None,
) -> None:
    """Load what `payflow up` loads at its first start; safe to repeat. Refused in production.

    The operators get passwords of their own, in the file that is named at the end.
    """
    from payflow.run.demo_data import load
    from payflow.run.local_rpc import reachable_instance
    from payflow.run.supervisor.environment import is_production

    if is_production():
        if if_allowed:
            print("PAYFLOW_ENV=production: nothing was loaded.")
            return
        raise StartError("PAYFLOW_ENV=production has no demo users.")
    instance = reachable_instance(data_dir)
    asyncio.run(load(instance))
    print(f"The demo data is loaded; the operators' passwords are in {instance.operators_file}.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("demo-data")(demo_data)
