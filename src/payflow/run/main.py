"""The command line. Each verb is a file in `commands/` with `register(app)`; only the typed one is imported."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Final

import typer
from typer.exceptions import TyperException

from payflow import __version__
from payflow.run import commands
from payflow.run.errors import StartError, explain_os_error

# The words of the library that reads the options.
_NOT_OF_TYPE: Final = re.compile(r"Input should be a valid (?P<type>\w+).*", re.DOTALL)
_TYPES: Final = {"integer": "a whole number", "boolean": "true or false"}
_ISSUES_HINT = "This is a bug of Payflow; the lines above belong in a report of it."


def verb_modules() -> dict[str, str]:
    """Every verb and the module that registers it: `check-config` is `commands/check_config.py`."""
    names = (entry.name for entry in pkgutil.iter_modules(commands.__path__))
    return {name.replace("_", "-"): f"{commands.__name__}.{name}" for name in names}


def fail(message: str) -> None:
    """As `console.fail`, which brings the whole library of coloured text with it: only where something went wrong."""
    from payflow.run.supervisor import console

    console.fail(message)


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
        outcome = build_app(sys.argv[1:])(prog_name="payflow", standalone_mode=False)
        raise SystemExit(outcome if isinstance(outcome, int) else 0)
    except TyperException as error:
        _refuse_usage(error)
        raise SystemExit(error.exit_code) from None
    except typer.Abort:
        raise SystemExit(130) from None
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


def _refuse_usage(error: TyperException) -> None:
    """What was typed wrong, in a line; where nothing was typed, the help."""
    context = getattr(error, "ctx", None)
    if type(error).__name__ == "NoArgsIsHelpError":
        if error.message.strip():
            print(error.message, file=sys.stderr)
        return
    command = context.command_path if context is not None else "payflow"
    message = error.format_message()
    if isinstance(error, typer.BadParameter) and error.param is not None and error.message:
        message = f"{max(error.param.opts, key=len)}: {_NOT_OF_TYPE.sub(_expected, error.message)}"
    end = "" if message.endswith((".", "?", "!")) else "."
    fail(f"{message}{end} See `{command} --help`.")


def _expected(match: re.Match[str]) -> str:
    return f"expected {_TYPES.get(match['type'], 'a ' + match['type'])}"


def _show_version(is_wanted: bool) -> None:
    if is_wanted:
        print(f"payflow {__version__}")
        raise typer.Exit


if __name__ == "__main__":
    main()
