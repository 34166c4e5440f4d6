"""`payflow demo`: the story of a few payments, played against the running system."""

from __future__ import annotations

import typer

from payflow.run.instance import make_instance
from payflow.run.options import DataDir, Port, PortBase
from payflow.run.registry import PORT_BASE, PUBLIC_PORT


def demo(data_dir: DataDir = None, port_base: PortBase = PORT_BASE, port: Port = PUBLIC_PORT) -> None:
    """Play a story: sign in, pay, confirm with a one-time password, pay another bank, and look at the trail.

    Plays against the running instance; where none runs, one is started, and stopped at the end.
    """
    import asyncio

    from payflow.run import control
    from payflow.run.commands.otp import newest_code
    from payflow.run.instance import Instance
    from payflow.run.story.play import play
    from payflow.run.story.screen import Screen
    from payflow.run.supervisor.console import make_console

    def tell(instance: Instance) -> None:
        async def read_code(transaction_id: str, customer_id: str) -> str:
            return await newest_code(instance=instance, transaction_id=transaction_id, customer=customer_id)

        asyncio.run(play(instance=instance, read_code=read_code, screen=Screen()))

    wanted = make_instance(data_dir=data_dir, port_base=port_base, port=port)
    found = control.running(wanted)
    if found is not None:
        tell(found.instance)
        return
    console = make_console()
    console.print(f"No instance runs on {wanted.data_dir}; starting one for the demo.")
    try:
        tell(control.start(wanted).instance)
    finally:
        if control.stop(wanted) is not None:
            console.print("Stopped it again; its data stays. `payflow up` starts it for longer.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(demo)
