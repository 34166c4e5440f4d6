"""`payflow check-config`: which settings there are, what they are now, and which are wrong."""

from __future__ import annotations

import importlib
import os
from typing import Annotated, Any

import typer


def check_config(
    service: Annotated[str | None, typer.Argument(help="One service only.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Also settings that have their default.")] = False,
) -> None:
    """Check the environment's settings against what the services know; exit code 1 names the first wrong one."""
    from payflow.run.errors import StartError
    from payflow.run.registry import deployables, find, service_names
    from payflow.run.supervisor.environment import is_production
    from payflow.run.supervisor.settings import check_names, settings_class

    rows = deployables(is_production=is_production())
    chosen = find(service, rows) if service else None
    if service and chosen is None:
        raise StartError(f"There is no service {service}: choose one of {', '.join(service_names(rows))}.")
    names = [chosen.service] if chosen else sorted(service_names(rows))
    every = {row.service: settings_class(importlib.import_module(row.module)) for row in rows}
    check_names(os.environ, every.values())
    wrong = 0
    for name in names:
        wrong += _print_service(name, every[name], show_all=show_all)
    if wrong:
        raise StartError(f"{wrong} setting{'s are' if wrong > 1 else ' is'} wrong.")
    print("The settings are right.")


def _print_service(name: str, cls: type[Any], *, show_all: bool) -> int:
    import msgspec

    from payflow.platform.settings import description_of, read_config_file, setting_types

    print(f"{name}:")
    wrong = 0
    types, config = setting_types(cls), read_config_file(os.environ)
    for field in msgspec.structs.fields(cls):
        is_set, value, problem = _value_of(field, types[field.name], config)
        wrong += bool(problem)
        if is_set or problem or show_all:
            print(f"  {problem or f'PAYFLOW_{field.name.upper()}={value}'}")
            if show_all and (text := description_of(types[field.name])):
                print(f"      {text}")
    return wrong


def _value_of(field: Any, wanted: Any, config: dict[str, Any]) -> tuple[bool, str, str]:
    """Whether the field was set, its value as it may be shown, and what is wrong with it."""
    from payflow.platform.settings import SettingsError, convert_setting, find_setting, shown
    from payflow.run.supervisor.environment import is_production

    try:
        given = find_setting(field.name, os.environ, config)
        if given is not None:
            convert_setting(field.name, given, wanted)
            return True, shown(field.name, given.value), ""
    except SettingsError as error:
        return True, "", str(error)
    if field.required and is_production():
        return False, "", f"PAYFLOW_{field.name.upper()} is not set."
    return False, "(made by `payflow up`)" if field.required else str(field.default), ""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command("check-config")(check_config)
