"""`payflow migrate`: bring a database to this release's form, before its services start."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from payflow.run.errors import StartError
from payflow.run.options import DataDir
from payflow.run.registry import deployables, service_names


def migrate(
    passwords_dir: Annotated[
        Path | None,
        typer.Option("--passwords-dir", help="Files postgres_<service> with the roles' passwords; others keep theirs."),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Migrate PAYFLOW_POSTGRES_URL (as the database's owner), or the running instance's database."""
    import asyncpg

    from payflow.platform.migrate import MONITOR, MigrationError
    from payflow.platform.migrate import migrate as run_migrations
    from payflow.run.supervisor.environment import is_production

    if passwords_dir is not None and not passwords_dir.is_dir():
        raise StartError(f"--passwords-dir {passwords_dir}: there is no such folder, and no password would be set.")
    url, directory = _target(data_dir)
    directory = passwords_dir or directory
    services = service_names(deployables(is_production=is_production()))
    files = {} if directory is None else {name: directory / f"postgres_{name}" for name in (*services, MONITOR)}
    present = {service: path for service, path in files.items() if path.is_file()}
    try:
        was_empty = asyncio.run(run_migrations(admin_url=url, services=services, password_files=present))
    except MigrationError as error:
        raise StartError(str(error)) from error
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise StartError(f"The database cannot be migrated: {error}") from error
    print("The database was made." if was_empty else "The database is up to date.")


def _target(data_dir: Path | None) -> tuple[str, Path | None]:
    """The owner's address, and where the roles' passwords are if it is an instance's own database."""
    from payflow.run.control import require_running
    from payflow.run.datadir import ensure_secret
    from payflow.run.instance import make_instance
    from payflow.run.supervisor.environment import external_postgres, with_user

    url = external_postgres()
    if url is not None:
        return url, None
    instance = make_instance(data_dir=data_dir)
    for process in require_running(instance).processes:
        if process.name == "postgres":
            password = ensure_secret(instance.secrets_dir / "postgres_owner")
            return with_user(process.url, "postgres", password), instance.secrets_dir
    raise StartError("Set PAYFLOW_POSTGRES_URL to the database's address as its owner.")


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command()(migrate)
