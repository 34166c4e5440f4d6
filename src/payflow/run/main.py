"""The command line. Each verb is a file in `commands/` with `register(app)`; only the typed one is imported."""

from __future__ import annotations

import importlib
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from payflow import __version__
from payflow.run import commands
from payflow.run.errors import StartError, explain_os_error
from payflow.run.supervisor.console import fail

_ISSUES_HINT = "This is a bug of Payflow; the lines above belong in a report of it."


def verb_modules() -> dict[str, str]:
    """Every verb and the module that registers it: `check-config` is `commands/check_config.py`."""
    names = (entry.name for entry in pkgutil.iter_modules(commands.__path__))
    return {name.replace("_", "-"): f"{commands.__name__}.{name}" for name in names}


def build_app(arguments: Sequence[str]) -> typer.Typer:
    """The application with the verb that `arguments` begin with, or with all of them for --help and unknown ones."""
    app = typer.Typer(
        name="payflow",
        help="An inter-bank payment system: eleven services on this machine, with one command.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )

    @app.callback()
    def payflow(
        version: Annotated[
            bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
        ] = False,
    ) -> None:
        """An inter-bank payment system: eleven services on this machine, with one command."""

    modules = verb_modules()
    typed = arguments[0] if arguments else ""
    for module in [modules[typed]] if typed in modules else modules.values():
        importlib.import_module(module).register(app)
    return app


def main() -> None:
    """Run the verb that was typed. What goes wrong at the user's side is one red line and exit code 1."""
    try:
        build_app(sys.argv[1:])(prog_name="payflow")
    except StartError as error:
        fail(error.message)
        raise SystemExit(error.exit_code) from None
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except BrokenPipeError:
        # `payflow logs | head`: the reader has enough.
        sys.stderr.close()
        raise SystemExit(0) from None
    except OSError as error:
        explained = explain_os_error(error)
        if explained is None:
            traceback.print_exc()
            fail(_ISSUES_HINT)
            raise SystemExit(70) from None
        fail(explained.message)
        raise SystemExit(1) from None


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"payflow {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
