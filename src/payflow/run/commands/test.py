"""`payflow test`: the whole test suite."""

from __future__ import annotations

import os
import secrets
import sys
from typing import Final

import typer

from payflow.run.errors import StartError
from payflow.run.instance import repository_root

# Each worker runs servers of its own, so memory sets the limit.
WORKERS_MAX: Final = 4


def test(context: typer.Context) -> None:
    """Run the tests; further arguments go to pytest."""
    root = repository_root()
    if not (root / "tests").is_dir():
        raise StartError("The tests are part of the repository: run this from a clone of it.")
    os.chdir(root)
    chosen = [] if any(os.path.exists(argument.split("::")[0]) for argument in context.args) else ["tests", *_shared()]
    os.execv(sys.executable, [sys.executable, "-m", "pytest", *chosen, *context.args])  # noqa: S606


def _shared() -> list[str]:
    """The whole suite is shared by several workers: much of it waits, for servers to start and deadlines to pass."""
    # Cases that come out of a set have one order in all workers, and another one in the next run.
    os.environ.setdefault("PYTHONHASHSEED", str(secrets.randbelow(2**32)))
    workers = min((os.cpu_count() or 1) + 1, WORKERS_MAX)
    return [f"--numprocesses={workers}", "--dist=loadscope", "--no-loadscope-reorder"]


def register(app: typer.Typer) -> None:
    """Add the verb."""
    settings = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": ["--help"]}
    app.command(context_settings=settings)(test)
