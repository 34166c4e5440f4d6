"""Settings: one frozen Struct per service, read from the environment, from files, and from a TOML file.

A field `postgres_url` is the setting `PAYFLOW_POSTGRES_URL`. `PAYFLOW_POSTGRES_URL_FILE` names a file that holds the
value (for secrets). `PAYFLOW_CONFIG_FILE` names a TOML file with the fields' names as keys; the environment wins.
An unknown or malformed `PAYFLOW_` setting raises SettingsError, so that a typing error never becomes a default.
"""

from __future__ import annotations

import re
import tomllib
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

PREFIX: Final = "PAYFLOW_"
# Settings of the launcher and the command line rather than of a service.
LAUNCHER_SETTINGS: Final = frozenset({"python", "data_dir", "config_file", "log_to", "demo", "venv"})

S = TypeVar("S", bound=msgspec.Struct)


class SettingsError(Exception):
    """A setting is unknown, missing or malformed; the message says which and what is expected."""


class Rate(msgspec.Struct, frozen=True):
    """So many in so long: "100/15m"."""

    count: int
    window_s: int

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Read "100/15m" (units s, m, h, d). Raises ValueError."""
        match = re.fullmatch(r"([1-9][0-9]*)/([1-9][0-9]*)?([smhd])", text.strip())
        if match is None:
            raise ValueError("expected COUNT/WINDOW such as 100/15m")
        unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}[match.group(3)]
        return cls(int(match.group(1)), int(match.group(2) or 1) * unit)


def describe(text: str) -> msgspec.Meta:
    """The description of a setting, shown by `payflow check-config` and in the documentation."""
    return msgspec.Meta(description=text)


class CommonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service needs. Each service's own class extends this one."""

    env: Annotated[
        Literal["development", "production"], describe("production refuses demo users, secrets and channels")
    ] = "development"
    data_dir: Annotated[str, describe("directory of an instance's files")] = ".payflow"
    host: Annotated[str, describe("address that services bind")] = "127.0.0.1"
    port: Annotated[int, describe("port of this service")] = 0
    postgres_url: Annotated[str, describe("PostgreSQL, as postgresql://role@host:port/database")] = ""
    postgres_password: Annotated[str, describe("password of the role, if not in the URL; best given as _FILE")] = ""
    postgres_pool_size: Annotated[int, describe("connections per process"), msgspec.Meta(ge=1, le=100)] = 3
    redis_url: Annotated[str, describe("Redis or Valkey, as redis://host:port/0 or unix:///path")] = ""
    service_keys_dir: Annotated[str, describe("folder with this service's private key and services.jwks.json")] = ""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], describe("least severity logged")] = "info"
    drain_s: Annotated[float, describe("seconds to finish requests at a stop")] = 2.0
    rpc_batches_max: Annotated[int, describe("batches worked on at once, per service")] = 64
    rpc_queue_max: Annotated[int, describe("items waiting per operation and client before 503")] = 2000
    gateway_url: Annotated[str, describe("where the gateway's private operations are")] = "http://127.0.0.1:3001"
    confirm_url: Annotated[str, describe("where confirm is")] = "http://127.0.0.1:3003"
    risk_url: Annotated[str, describe("where risk is")] = "http://127.0.0.1:3004"
    notification_url: Annotated[str, describe("where notification is")] = "http://127.0.0.1:3005"
    otp_url: Annotated[str, describe("where otp is")] = "http://127.0.0.1:3006"
    account_url: Annotated[str, describe("where account is")] = "http://127.0.0.1:3007"
    audit_url: Annotated[str, describe("where audit is")] = "http://127.0.0.1:3008"
    ofac_url: Annotated[str, describe("where ofac is")] = "http://127.0.0.1:3009"
    kyc_url: Annotated[str, describe("where kyc is")] = "http://127.0.0.1:3010"
    partner_bank_url: Annotated[str, describe("where partner_bank is")] = "http://127.0.0.1:3011"
    # tools/new_service.py adds settings above this line.

    def url_of(self, service: str) -> str:
        """The base URL of another service."""
        return str(getattr(self, f"{service}_url"))


def _field_names(cls: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(cls)}


def unknown_settings(environ: Mapping[str, str], classes: Iterable[type[msgspec.Struct]]) -> list[str]:
    """The PAYFLOW_ variables that no service knows, sorted."""
    known = set(LAUNCHER_SETTINGS).union(*(_field_names(cls) for cls in classes))
    unknown = []
    for name in environ:
        if name.startswith(PREFIX):
            field = name.removeprefix(PREFIX).lower()
            if field not in known and field.removesuffix("_file") not in known:
                unknown.append(name)
    return sorted(unknown)


def _raw_values(environ: Mapping[str, str], config_file: str | None) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if config_file:
        try:
            values.update(tomllib.loads(Path(config_file).read_text(encoding="utf-8")))
        except (OSError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"PAYFLOW_CONFIG_FILE={config_file}: {error}") from None
    for name, value in environ.items():
        if name.startswith(PREFIX):
            values[name.removeprefix(PREFIX).lower()] = value
    return values


def _read_secret_file(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{PREFIX}{name.upper()}_FILE={path}: {error.strerror}") from None


def _convert(name: str, value: Any, wanted: Any) -> Any:
    if typing.get_origin(wanted) is Annotated and typing.get_args(wanted)[0] is Rate:
        wanted = Rate
    if wanted is Rate:
        try:
            return Rate.parse(str(value))
        except ValueError as error:
            raise SettingsError(f"{PREFIX}{name.upper()}={value!r}: {error}") from None
    if isinstance(value, str) and wanted in (bool, Annotated[bool, ...]):
        value = value.lower()
    try:
        return msgspec.convert(value, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{PREFIX}{name.upper()}={value!r}: {str(error).lower()}") from None


def read_settings(cls: type[S], environ: Mapping[str, str]) -> S:
    """The settings of one service.

    Raises SettingsError naming the first setting that is malformed or missing. Unknown names are looked for across
    all services by `unknown_settings`, since one environment is often shared.
    """
    raw = _raw_values(environ, environ.get(f"{PREFIX}CONFIG_FILE"))
    hints = typing.get_type_hints(cls, include_extras=True)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        if field.name in raw:
            values[field.name] = _convert(field.name, raw[field.name], hints[field.name])
        elif f"{field.name}_file" in raw:
            text = _read_secret_file(field.name, str(raw[f"{field.name}_file"]))
            values[field.name] = _convert(field.name, text, hints[field.name])
        elif field.required:
            raise SettingsError(f"{PREFIX}{field.name.upper()} is not set.")
    return cls(**values)
