"""Refusing a mistyped or malformed setting before any service is forked, in one line with the setting's name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from types import ModuleType

import msgspec

from payflow.platform.eventlog.kafka.config import kafka_of
from payflow.platform.settings import PREFIX, CommonSettings, SettingsError, read_settings, unknown_settings
from payflow.run.errors import StartError


def settings_class(module: ModuleType) -> type[CommonSettings]:
    """The class of a service's settings, which its `app.py` names SETTINGS."""
    found = getattr(module, "SETTINGS", CommonSettings)
    return found if isinstance(found, type) and issubclass(found, CommonSettings) else CommonSettings


def check_names(environ: Mapping[str, str], classes: Iterable[type[CommonSettings]]) -> None:
    """Raises StartError for a setting that no service knows: a typing error must not become a default."""
    every: set[type[CommonSettings]] = {CommonSettings, *classes}
    try:
        unknown = unknown_settings(environ, every)
    except SettingsError as error:
        raise StartError(f"{error}.") from error
    fields = sorted({field.name for cls in every for field in msgspec.structs.fields(cls)})
    for name in unknown:
        is_variable = name.startswith(PREFIX)
        where = "" if is_variable else f" (in {environ[f'{PREFIX}CONFIG_FILE']})"
        # Without the prefix, which all have in common and which would make everything similar.
        similar = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), fields, n=1)
        meant = [f"{PREFIX}{field.upper()}" if is_variable else field for field in similar]
        hint = f"did you mean {meant[0]}?" if meant else "`payflow check-config --all` lists them."
        raise StartError(f"{name}{where} is no setting of Payflow: {hint}")


def check_values(environ: Mapping[str, str], cls: type[CommonSettings]) -> None:
    """Raises StartError for a value that the service would refuse, or Kafka's settings that do not fit together."""
    try:
        kafka_of(read_settings(cls, environ))
    except SettingsError as error:
        raise StartError(str(error)) from error
