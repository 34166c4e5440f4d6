"""`payflow serve`: one service in the foreground, as containers run it."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.registry import PORT_BASE, SERVICES, Deployable, deployables, find, service_names

if TYPE_CHECKING:
    from payflow.platform.settings import CommonSettings


def serve(
    service: Annotated[str, typer.Argument(help="Which one, e.g. account.")],
    port: Annotated[int | None, typer.Option("--port", help="[default: $PAYFLOW_PORT, else 3000 + its number]")] = None,
    host: Annotated[str | None, typer.Option("--host", help="[default: $PAYFLOW_HOST, else 127.0.0.1]")] = None,
    public_port: Annotated[
        int | None,
        typer.Option("--public-port", help="gateway: a second port, on which only the public API is to be had."),
    ] = None,
    instance: Annotated[str | None, typer.Option("--instance", help="The name of this process in logs.")] = None,
) -> None:
    """Run one service until SIGTERM. Its settings, the other services' addresses among them, are in the environment."""
    from payflow.platform.process import run
    from payflow.run.supervisor.sockets import listen

    row = find(service)
    if row is None:
        raise StartError(f"There is no service {service}: choose one of {', '.join(service_names(SERVICES))}.")
    if public_port is not None and not row.is_gateway:
        raise StartError(f"--public-port is for the gateway: {row.name} has no public API.")
    settings = checked_settings(row)
    chosen = port or settings.port or PORT_BASE + row.port_offset
    sockets = [listen(host=host or settings.host, port=chosen, option="--port")]
    if public_port is not None:
        sockets.append(listen(host=host or settings.host, port=public_port, option="--public-port"))
    os.environ["PAYFLOW_PORT"] = str(chosen)
    run(service=row.service, instance=instance or row.service, module=row.module, sockets=sockets)


def checked_settings(row: Deployable) -> CommonSettings:
    """The service's settings. Raises StartError for the first that is unknown, missing or malformed."""
    from payflow.platform.rpc.identity import JWKS_FILE
    from payflow.platform.settings import CommonSettings, SettingsError, read_settings, unknown_settings
    from payflow.run.supervisor.environment import is_production
    from payflow.run.supervisor.settings import check_names, settings_class

    own = settings_class(importlib.import_module(row.module))
    try:
        # One environment is often shared by all, so that others' settings are known here; looked up only when needed.
        if unknown_settings(os.environ, [CommonSettings, own]):
            check_names(
                os.environ,
                [
                    settings_class(importlib.import_module(other.module))
                    for other in deployables(is_production=is_production())
                ],
            )
        settings = read_settings(own, os.environ)
    except SettingsError as error:
        raise StartError(str(error)) from error
    if not settings.service_keys_dir:
        raise StartError("PAYFLOW_SERVICE_KEYS_DIR is not set: `payflow secrets DIR` makes such a folder.")
    if not (Path(settings.service_keys_dir) / JWKS_FILE).is_file():
        raise StartError(
            f"PAYFLOW_SERVICE_KEYS_DIR={settings.service_keys_dir}: there is no {JWKS_FILE} that we can read."
        )
    return settings


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(serve)
