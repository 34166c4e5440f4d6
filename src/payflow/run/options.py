"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from payflow.run.registry import highest_port_offset

DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the instance keeps its files. [default: $PAYFLOW_DATA_DIR, else .payflow in the repository]",
        show_default=False,
    ),
]
PortBase: TypeAlias = Annotated[
    int, typer.Option("--port-base", help=f"Services listen on this port + 1 to {highest_port_offset()}.")
]
Port: TypeAlias = Annotated[int, typer.Option("--port", help="The public port, shared by both gateways.")]
Host: TypeAlias = Annotated[str, typer.Option("--host", help="Where the public port listens.")]
