"""`payflow reset`: remove an instance's data."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.instance import Instance, make_instance
from payflow.run.options import DataDir


def reset(
    data_dir: DataDir = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove all data of the instance: accounts, payments, audit, passwords, logs."""
    from payflow.run.datadir import take_lock
    from payflow.run.embedded.places import remove_server_homes, remove_socket_dir

    instance = make_instance(data_dir=data_dir)
    if not instance.data_dir.exists():
        print(f"There is nothing at {instance.data_dir}.")
        return
    _require_ours(instance)
    lock = take_lock(instance)
    try:
        if not yes and not typer.confirm(f"Remove everything in {instance.data_dir}? It cannot be brought back."):
            raise StartError("Nothing was removed.")
        remove_socket_dir(instance)
        remove_server_homes(instance)
        for entry in instance.data_dir.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            elif entry != instance.lock_file:
                entry.unlink()
    finally:
        lock.release()
    instance.data_dir.rmdir()
    print(f"Removed {instance.data_dir}.")


def _require_ours(instance: Instance) -> None:
    """A mistyped --data-dir must not cost somebody their home."""
    if not instance.version_file.is_file() and not (instance.secrets_dir / "services").is_dir():
        raise StartError(f"{instance.data_dir} is no data directory of Payflow: nothing was removed.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(reset)
