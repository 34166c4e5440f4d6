"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Where the instance keeps its files. [default: $PAYFLOW_DATA_DIR, else .payflow in the repository]",
        show_default=False,
    ),
]
PortBase: TypeAlias = Annotated[int, typer.Option("--port-base", help="Services listen on this port + 1 to 12.")]
Port: TypeAlias = Annotated[int, typer.Option("--port", help="The public port, shared by both gateways.")]
Host: TypeAlias = Annotated[str, typer.Option("--host", help="Where the public port listens.")]
