"""`payflow dev`: what a developer needs beside the product. Part of the repository, not of the package."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from payflow.run.control import require_running
from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.options import DataDir, PortBase
from payflow.run.registry import PORT_BASE

_QUIET_S = 3.0
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
    with _from_the_repository("A Kafka to try"):
        from payflow_dev.kafka import command
    if nodes not in (1, 3):
        raise StartError("--nodes: choose 1 or 3.")
    if only_fetch:
        print(f"Kafka's jars are in {command.fetch_only()}.")
        return
    command.run(instance=make_instance(data_dir=data_dir, port_base=port_base), count=nodes)


@dev.command()
def otlp(
    port: Annotated[int, typer.Option("--port", help="Where to listen on loopback.", min=1, max=65535)] = 4318,
) -> None:
    """Receive traces by OTLP and print each as a tree, until Ctrl-C. Start Payflow with PAYFLOW_OTLP_ENDPOINT set."""
    with _from_the_repository("The receiver"):
        from payflow_dev.otlp.receiver import Receiver
        from payflow_dev.otlp.tree import tree_of
    last_seen: dict[str, float] = {}
    with Receiver(port=port, on_span=lambda span: last_seen.update({span.trace_id: time.monotonic()})) as receiver:
        print(f"Listening: PAYFLOW_OTLP_ENDPOINT={receiver.url}", flush=True)
        while True:
            time.sleep(0.5)
            # Processes send once a second: a trace that has been quiet for longer is whole.
            for trace_id, seen_at in list(last_seen.items()):
                if time.monotonic() - seen_at > _QUIET_S:
                    del last_seen[trace_id]
                    print("\n".join(tree_of(receiver.spans(trace_id))), flush=True)


@dev.command()
def prometheus(
    port: Annotated[int, typer.Option("--port", help="Where it listens on loopback.", min=1, max=65535)] = 9090,
    data_dir: DataDir = None,
) -> None:
    """Run Prometheus with the shipped alerts on the running instance until Ctrl-C; it has to be installed."""
    with _from_the_repository("Prometheus' configuration"):
        from payflow_dev.watchers.prometheus import run
    run(require_running(make_instance(data_dir=data_dir)), port=port)


@dev.command()
def kill(
    process: Annotated[str, typer.Argument(help="Its name in `payflow status`, e.g. kyc or postgres.")],
    for_s: Annotated[float, typer.Option("--for", help="Keep it down for so many seconds.", min=0)] = 0.0,
    data_dir: DataDir = None,
) -> None:
    """Kill a process of the running instance (SIGKILL), to see what becomes of it; it is started again by itself."""
    with _from_the_repository("This"):
        from payflow_dev.watchers import killing
    times = killing.kill(make_instance(data_dir=data_dir), process, for_s=for_s)
    print(killing.told(process, times=times, for_s=for_s))


@contextmanager
def _from_the_repository(what: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError(f"{what} is part of the repository: run this from a clone of it.") from None


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(dev, name="dev")
