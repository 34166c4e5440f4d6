"""`payflow up`: start everything."""

from __future__ import annotations

from typing import Annotated

import typer

from payflow.run.instance import make_instance
from payflow.run.options import DataDir, Host, Port, PortBase
from payflow.run.registry import PORT_BASE, PUBLIC_PORT


def up(
    data_dir: DataDir = None,
    port_base: PortBase = PORT_BASE,
    port: Port = PUBLIC_PORT,
    host: Host = "127.0.0.1",
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Return when all is ready; runs on.")] = False,
) -> None:
    """Start PostgreSQL, Valkey and every service; Ctrl-C stops them."""
    from payflow.run.plan import payflow_plan
    from payflow.run.supervisor.console import Progress, make_console
    from payflow.run.supervisor.daemon import run_in_background
    from payflow.run.supervisor.environment import is_production
    from payflow.run.supervisor.start import up as run_supervisor

    instance = make_instance(data_dir=data_dir, port_base=port_base, port=port, host=host)
    plan, progress = payflow_plan(), Progress(make_console())
    if plan.load_demo is None and not is_production():
        progress.warn("This build has no demo data: the demo users do not exist.")
    if detach:
        code = run_in_background(
            lambda on_ready: run_supervisor(instance=instance, plan=plan, progress=progress, on_ready=on_ready),
            log=instance.log_file("supervisor"),
        )
        raise typer.Exit(code)
    run_supervisor(instance=instance, plan=plan, progress=progress, on_ready=lambda: None)


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(up)
