"""`payflow secrets`: the secrets that production asks for, made once, for the operator to keep."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def secrets(
    folder: Annotated[Path, typer.Argument(help="Where they go; what is there already stays as it is.")],
    shares: Annotated[
        Path | None,
        typer.Option(help="Also fill the folders here that are named after a service with what that service needs."),
    ] = None,
    host: Annotated[
        list[str] | None, typer.Option(help="Names for the certificate in the folder tls of --shares.")
    ] = None,
) -> None:
    """Make keys and passwords for production, and print the settings that name them."""
    from payflow.run.datadir import ensure_secret
    from payflow.run.registry import deployables, service_names
    from payflow.run.secrets import make_secrets

    services = service_names(deployables(is_production=True))
    folder = folder.expanduser().absolute()
    settings = make_secrets(folder, services)
    (folder / "roles").mkdir(mode=0o700, exist_ok=True)
    for service in services:
        ensure_secret(folder / "roles" / f"postgres_{service}")
    ensure_secret(folder / "inbound_secret")
    settings["PAYFLOW_INBOUND_SECRET_FILE"] = str(folder / "inbound_secret")
    for name, value in settings.items():
        print(f"{name}={value}")
    if shares is not None:
        _share_out(folder, shares, host or ["localhost", "127.0.0.1"])


def _share_out(folder: Path, shares: Path, hosts: list[str]) -> None:
    from payflow.run.errors import StartError
    from payflow.run.shares import share_out

    filled = share_out(secrets=folder, shares=shares, hosts=hosts)
    if not filled:
        raise StartError(f"{shares} has no folder that is named after a service: make those that are to be filled.")
    print(f"# shared out to {', '.join(filled)}")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(secrets)
