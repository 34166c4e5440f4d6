"""`payflow dev`: helpers for whoever works on Payflow itself."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from payflow.run.errors import StartError

_QUIET_S = 3.0


def otlp(
    port: Annotated[int, typer.Option("--port", help="Where to listen on loopback.", min=1, max=65535)] = 4318,
) -> None:
    """Receive traces by OTLP and print each as a tree, until Ctrl-C. Start Payflow with PAYFLOW_OTLP_ENDPOINT set."""
    try:
        from payflow_dev.otlp.receiver import Receiver
        from payflow_dev.otlp.tree import tree_of
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError("The receiver is part of the repository: run it from a clone of it.") from None
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


def register(app: typer.Typer) -> None:
    """Add the verb."""
    dev = typer.Typer(no_args_is_help=True, help="Helpers for whoever works on Payflow itself.")

    @dev.callback()
    def group() -> None:
        """Helpers for whoever works on Payflow itself."""

    dev.command("otlp")(otlp)
    app.add_typer(dev, name="dev")
