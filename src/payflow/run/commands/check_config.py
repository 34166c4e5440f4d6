"""`payflow check-config`: which settings there are, what they are now, and which are wrong."""

from __future__ import annotations

import importlib
import os
from typing import Annotated, Any, NamedTuple

import typer


def check_config(
    service: Annotated[str | None, typer.Argument(help="One service only.")] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Also settings that have their default.")] = False,
) -> None:
    """Check the environment's settings against what the services know; exit code 1 when one is wrong."""
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
    facts = _facts({name: every[name] for name in names}, show_all=show_all)
    for heading, group in _by_readers(facts, names).items():
        print(f"{heading}:")
        for fact in group:
            print(f"  {fact.text}")
            if show_all and fact.description:
                print(f"      {fact.description}")
    wrong = sum(fact.is_wrong for fact in facts)
    if wrong:
        raise StartError(f"{wrong} setting{'s are' if wrong > 1 else ' is'} wrong.")
    print("The settings are right.")


class _Fact(NamedTuple):
    """What is to be said of one setting, the same for each service that reads it."""

    text: str
    description: str
    is_wrong: bool


def _facts(classes: dict[str, type[Any]], *, show_all: bool) -> dict[_Fact, list[str]]:
    """Each fact once, with the services for which it holds."""
    import msgspec

    from payflow.platform.settings import description_of, read_config_file, setting_types

    config = read_config_file(os.environ)
    facts: dict[_Fact, list[str]] = {}
    for name, cls in classes.items():
        types = setting_types(cls)
        for field in msgspec.structs.fields(cls):
            is_set, value, problem = _value_of(field, types[field.name], config)
            if is_set or problem or show_all:
                text = problem or f"PAYFLOW_{field.name.upper()}={value}"
                fact = _Fact(text, description_of(types[field.name]), bool(problem))
                facts.setdefault(fact, []).append(name)
        contradiction = _contradiction(cls, types, config)
        if contradiction:
            facts.setdefault(_Fact(contradiction, "", True), []).append(name)
    return facts


def _contradiction(cls: type[Any], types: dict[str, Any], config: dict[str, Any]) -> str:
    """What is wrong with a service's settings together; empty where one is wrong alone, which is told already."""
    import msgspec

    from payflow.platform.settings import SettingsError, convert_setting, find_setting

    values: dict[str, Any] = {}
    try:
        for field in msgspec.structs.fields(cls):
            given = find_setting(field.name, os.environ, config)
            if given is not None:
                values[field.name] = convert_setting(field.name, given, types[field.name])
            elif field.required:
                values[field.name] = ""  # made by `payflow up`, or told as missing
    except SettingsError:
        return ""
    try:
        cls(**values).check()
    except SettingsError as error:
        return str(error)
    return ""


def _by_readers(facts: dict[_Fact, list[str]], names: list[str]) -> dict[str, list[_Fact]]:
    """What holds for every service first, then what holds for some, under their names."""
    groups: dict[str, list[_Fact]] = {"every service": []} if len(names) > 1 else {}
    for fact, readers in sorted(facts.items(), key=lambda entry: entry[1]):
        heading = "every service" if len(names) > 1 and readers == names else ", ".join(readers)
        groups.setdefault(heading, []).append(fact)
    return {heading: group for heading, group in groups.items() if group}


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
