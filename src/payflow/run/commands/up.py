"""`payflow up`: start everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.options import DataDir, Host, Port, PortBase
from payflow.run.registry import PORT_BASE, PUBLIC_PORT

if TYPE_CHECKING:
    from payflow.run.supervisor.servers import MakesBroker


def up(
    data_dir: DataDir = None,
    port_base: PortBase = PORT_BASE,
    port: Port = PUBLIC_PORT,
    host: Host = "127.0.0.1",
    kafka: Annotated[
        bool,
        typer.Option("--kafka", help="Events go through Kafka: yours, or one that is started here (Java, Maven)."),
    ] = False,
    copies: Annotated[
        list[str] | None, typer.Option("--copies", help="More processes of a service, e.g. confirm=3; repeatable.")
    ] = None,
    detach: Annotated[bool, typer.Option("-d", "--detach", help="Return when all is ready; runs on.")] = False,
) -> None:
    """Start PostgreSQL, Valkey and every service; Ctrl-C stops them. With --kafka, events go through Kafka."""
    from payflow.run.plan import payflow_plan
    from payflow.run.supervisor.console import Progress, make_console
    from payflow.run.supervisor.daemon import run_in_background
    from payflow.run.supervisor.environment import is_production
    from payflow.run.supervisor.start import up as run_supervisor

    instance = make_instance(data_dir=data_dir, port_base=port_base, port=port, host=host)
    plan = payflow_plan(prepare_broker=_own_broker() if kafka else None, copies=copies or (), is_detached=detach)
    progress = Progress(make_console())
    if plan.load_demo is None and not is_production():
        progress.warn("This build has no demo data: the demo users do not exist.")
    if detach:
        code = run_in_background(
            lambda on_ready: run_supervisor(instance=instance, plan=plan, progress=progress, on_ready=on_ready),
            log=instance.log_file("supervisor"),
        )
        raise typer.Exit(code)
    run_supervisor(instance=instance, plan=plan, progress=progress, on_ready=lambda: None)


def _own_broker() -> MakesBroker | None:
    """What makes a Kafka of the instance's own; None where the user has brokers. Raises StartError."""
    from payflow.run.supervisor.environment import is_production, setting

    if setting("KAFKA_BROKERS") is not None:
        return None
    if is_production():
        raise StartError("PAYFLOW_ENV=production starts no Kafka of its own: set PAYFLOW_KAFKA_BROKERS.")
    try:
        from payflow_dev.kafka.supervised import prepare_broker
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError("A Kafka to try is part of the repository: set PAYFLOW_KAFKA_BROKERS to yours.") from None
    return prepare_broker


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(up)
