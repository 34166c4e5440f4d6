"""`payflow vendors`: stand-ins for the vendors of SMS, e-mail and push, to try the channels without an account."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Literal

import typer

from payflow.run.errors import StartError
from payflow.run.registry import PUBLIC_PORT

PORT_BASE = 3100


def vendors(
    folder: Annotated[Path, typer.Option(help="Where keys and the settings for Payflow are written.")] = Path(
        ".payflow-vendors"
    ),
    port_base: Annotated[int, typer.Option(help="They listen on the five ports after this one.")] = PORT_BASE,
    public_url: Annotated[
        str | None, typer.Option(help=f"Where they call back. [default: http://127.0.0.1:{PUBLIC_PORT}]")
    ] = None,
    email: Annotated[
        Literal["sendgrid", "smtp", "smtps"], typer.Option(help="By whom Payflow is to send e-mail.")
    ] = "sendgrid",
) -> None:
    """Run stand-ins for Twilio, SendGrid, FCM and a mail server, and print what they are handed, until Ctrl-C."""
    try:
        from payflow_dev.vendors.app import serve
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("payflow_dev"):
            raise
        raise StartError("The stand-ins are part of the repository: run them from a clone of it.") from None
    url = public_url or f"http://127.0.0.1:{PUBLIC_PORT}"
    asyncio.run(serve(folder=folder.absolute(), public_url=url, port_base=port_base, email=email))


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(vendors)
