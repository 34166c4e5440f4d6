"""`payflow keys rotate`: sign access tokens with a new key from now on."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.instance import make_instance
from payflow.run.options import DataDir

if TYPE_CHECKING:
    from payflow.contracts.gateway import KeysRotated

keys = typer.Typer(no_args_is_help=True, help="The keys that sign access tokens.")


@keys.callback()
def group() -> None:
    """The keys that sign access tokens."""


@keys.command()
def rotate(data_dir: DataDir = None) -> None:
    """Make a new signing key. The old one verifies until its tokens have ended, so nobody has to sign in again."""
    rotated = asyncio.run(_rotate(data_dir))
    print(f"Signing with key {rotated.active_kid}.")
    for kid in rotated.verifying_kids:
        if kid != rotated.active_kid:
            print(f"Key {kid} verifies until its last token has ended.")


@keys.command()
def make(
    folder: Annotated[Path, typer.Argument(help="The folder of signing keys, numbered files.")],
    signs_in_s: Annotated[
        int, typer.Option("--signs-in-s", min=0, help="Seconds until gateways begin to sign with it.")
    ] = 0,
) -> None:
    """Make the next signing key in a folder, without asking a gateway: for a cluster that hands the folder out.

    The seconds are for its way to all gateways; one that has it already verifies with it meanwhile.
    """
    from payflow.services.gateway.keys import FileKeyRing

    now = datetime.now(UTC)
    was_empty = not folder.is_dir() or not any(folder.iterdir())
    try:
        ring = FileKeyRing.open(folder, token_lifetime=timedelta(days=1), now=now)
        number = 1 if was_empty else ring.add(signs_from=now + timedelta(seconds=signs_in_s))
    except OSError as error:
        raise StartError(f"{folder} cannot be used: {error.strerror}.") from error
    print(folder / f"{number:04d}.jwk")


async def _rotate(data_dir: Path | None) -> KeysRotated:
    """Ask the gateway. Raises StartError when it does not run, cannot be reached, or refuses."""
    from payflow.contracts.gateway import Gateway, RotateKeys
    from payflow.kernel.errors import PayflowError
    from payflow.platform.rpc import RpcClients
    from payflow.platform.rpc.identity import Signer
    from payflow.run.secrets import COMMAND_LINE

    url, keys_dir = _address(data_dir)
    try:
        signer = Signer.load(service=COMMAND_LINE, directory=keys_dir)
    except OSError as error:
        raise StartError(f"The command line's key in {keys_dir} cannot be read: {error.strerror}.") from None
    clients = RpcClients(signer=signer, queue_max=10)
    try:
        (answer,) = await clients.connect(Gateway, url).rotate_keys([RotateKeys()])
    finally:
        await clients.close()
    if isinstance(answer, PayflowError):
        raise StartError(f"The keys were not rotated: {answer.detail or answer.code}")
    return answer


def _address(data_dir: Path | None) -> tuple[str, Path]:
    """Where a gateway is and where our key is: as the settings say, else those of the running instance."""
    from payflow.run.control import require_running
    from payflow.run.registry import find

    url, keys_dir = os.environ.get("PAYFLOW_GATEWAY_URL"), os.environ.get("PAYFLOW_SERVICE_KEYS_DIR")
    if url and keys_dir:
        return url, Path(keys_dir)
    instance = require_running(make_instance(data_dir=data_dir)).instance
    row = find("gateway")
    assert row is not None
    return instance.service_url(row), instance.service_keys_dir


def register(app: typer.Typer) -> None:
    """Add the verbs."""
    app.add_typer(keys, name="keys")
