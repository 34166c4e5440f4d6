"""`payflow check-config`: which settings there are, what they are now, and which are wrong."""

from __future__ import annotations

import importlib
import os
import typing
from typing import Annotated, Any

import typer


def check_config(
    service: Annotated[str | None, typer.Argument(help="One service only.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Also settings that have their default.")] = False,
) -> None:
    """Check the environment's settings against what the services know; exit code 1 names the first wrong one."""
    from payflow.run.errors import StartError
    from payflow.run.registry import SERVICES, find, service_names
    from payflow.run.supervisor.settings import check_names, settings_class

    if service is not None and find(service) is None:
        raise StartError(f"There is no service {service}: choose one of {', '.join(service_names(SERVICES))}.")
    names = [service] if service else sorted(set(service_names(SERVICES)))
    every = {row.service: settings_class(importlib.import_module(row.module)) for row in SERVICES}
    check_names(os.environ, every.values())
    wrong = 0
    for name in names:
        wrong += _print_service(name, every[name], show_all=show_all)
    if wrong:
        raise StartError(f"{wrong} setting{'s are' if wrong > 1 else ' is'} wrong.")
    print("The settings are right.")


def _print_service(name: str, cls: type[Any], *, show_all: bool) -> int:
    import msgspec

    print(f"{name}:")
    wrong = 0
    for field in msgspec.structs.fields(cls):
        is_set, shown, problem = _value_of(cls, field)
        wrong += bool(problem)
        if is_set or problem or show_all:
            print(f"  PAYFLOW_{field.name.upper()}={shown}{'   ' + problem if problem else ''}")
            if show_all and (text := _description(cls, field.name)):
                print(f"      {text}")
    return wrong


def _value_of(cls: type[Any], field: Any) -> tuple[bool, str, str]:
    """Whether the environment sets the field, its value as it may be shown, and what is wrong with it."""
    from payflow.platform.settings import SettingsError, read_settings

    variable = f"PAYFLOW_{field.name.upper()}"
    given = {name: os.environ[name] for name in (variable, f"{variable}_FILE") if os.environ.get(name)}
    default = "" if field.required else repr(field.default)
    is_secret = any(word in field.name for word in ("password", "key", "secret")) and not field.name.endswith("_dir")
    if not given:
        return False, "(set by `payflow up`)" if field.required else default, ""
    probe = {f"PAYFLOW_{other.name.upper()}": "x" for other in _required_fields(cls) if other.name != field.name}
    shown = "********" if is_secret else next(iter(given.values()))
    try:
        read_settings(cls, {**probe, **given})
    except SettingsError as error:
        return True, shown, str(error)
    return True, shown, ""


def _required_fields(cls: type[Any]) -> list[Any]:
    import msgspec

    return [field for field in msgspec.structs.fields(cls) if field.required]


def _description(cls: type[Any], name: str) -> str:
    hint = typing.get_type_hints(cls, include_extras=True)[name]
    metas = [meta for meta in typing.get_args(hint)[1:] if getattr(meta, "description", None)]
    return metas[0].description if metas else ""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check-config")(check_config)
