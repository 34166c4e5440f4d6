"""Settings: one frozen Struct per service, read from the environment, from files, and from a TOML file.

A field `postgres_url` is the setting `PAYFLOW_POSTGRES_URL`. `PAYFLOW_POSTGRES_URL_FILE` names a file that holds the
value (for secrets). `PAYFLOW_CONFIG_FILE` names a TOML file with the fields' names as keys; the environment wins.
An unknown or malformed `PAYFLOW_` setting raises SettingsError, so that a typing error never becomes a default.
"""

from __future__ import annotations

import math
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple, TypeVar
from urllib.parse import urlsplit

import msgspec

from payflow.platform.addresses import split_address

PREFIX: Final = "PAYFLOW_"
# Settings of the launcher and the command line rather than of a service.
LAUNCHER_SETTINGS: Final = frozenset({"python", "data_dir", "config_file", "venv"})
_SECRET_ENDINGS: Final = ("_password", "_key", "_keys", "_secret", "_secrets", "_token")
_URL_PASSWORD: Final = re.compile(r"(\w+://[^\s:/@]*:)[^\s@]+@")
_PLAIN_WORDS: Final = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "bool | null": "true or false",
    "str": "a text",
}
_CHECK: Final = "check"
_SHOWN_MAX: Final = 100
_BROKER: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{0,4}")
_TOPIC_PREFIX: Final = re.compile(r"[A-Za-z0-9._-]{0,100}")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

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
        return cls(int(match.group(1)), int(match.group(2) or 1) * _UNITS_S[match.group(3)])

    def __str__(self) -> str:
        unit = next(unit for unit, seconds in reversed(_UNITS_S.items()) if self.window_s % seconds == 0)
        return f"{self.count}/{self.window_s // _UNITS_S[unit]}{unit}"


def describe(text: str, *, check: Callable[[str], object] | None = None) -> msgspec.Meta:
    """The description of a setting, shown by `payflow check-config` and in the documentation.

    `check` raises ValueError for a value that the service could not use, so that it is refused before anything starts.
    """
    return msgspec.Meta(description=text, extra=None if check is None else {_CHECK: check})


def check_brokers(text: str) -> None:
    """Raises ValueError for what is no list of host:port."""
    for broker in filter(None, (entry.strip() for entry in text.split(","))):
        if not _BROKER.fullmatch(broker):
            raise ValueError(f"expected host:port,host:port, and {broker!r} is none")


def check_prefix(text: str) -> None:
    """Raises ValueError for what no name of a topic can begin with."""
    if not _TOPIC_PREFIX.fullmatch(text):
        raise ValueError("expected at most 100 letters, digits, dots, dashes and underscores")


def check_redis(text: str) -> None:
    """Raises ValueError for an address of a cluster that names no node."""
    parts = split_address(text)
    if parts.scheme.endswith("+cluster") and not all(
        place.split(":")[0] for place in parts.netloc.rpartition("@")[2].split(",")
    ):
        raise ValueError("expected redis+cluster://HOST:PORT,HOST:PORT")


def check_endpoint(text: str) -> None:
    """Raises ValueError unless it is empty or the address of an HTTP server."""
    parts = urlsplit(text)
    if text and (parts.scheme not in ("http", "https") or not parts.hostname):
        raise ValueError("expected http://HOST:PORT or https://HOST:PORT")


class CommonSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What every service needs. Each service's own class extends this one."""

    env: Annotated[
        Literal["development", "production"], describe("production refuses demo users, secrets and channels")
    ] = "development"
    data_dir: Annotated[str, describe("directory of an instance's files")] = ".payflow"
    host: Annotated[str, describe("address that services bind")] = "127.0.0.1"
    port: Annotated[int, describe("port of this service"), msgspec.Meta(ge=0, le=65535)] = 0
    postgres_url: Annotated[str, describe("PostgreSQL, as postgresql://role@host:port/database")] = ""
    postgres_password: Annotated[str, describe("password of the role, if not in the URL; best given as _FILE")] = ""
    postgres_pooling: Annotated[
        Literal["session", "transaction"],
        describe("transaction: POSTGRES_URL is a PgBouncer with pool_mode=transaction"),
    ] = "session"
    postgres_direct_url: Annotated[
        str,
        describe(
            "with pooling by transaction: PostgreSQL itself, past PgBouncer, for what keeps its connection; without a "
            "role in it, POSTGRES_URL's"
        ),
    ] = ""
    postgres_replica_url: Annotated[
        str,
        describe(
            "a streaming replica, for lists, statements and searches that may be a little old; without a role in it, "
            "POSTGRES_URL's"
        ),
    ] = ""
    postgres_replica_lag_max_s: Annotated[
        float, describe("how old the replica may be before everything goes to the primary"), msgspec.Meta(gt=0, le=300)
    ] = 10.0
    postgres_pool_size: Annotated[int, describe("connections per process"), msgspec.Meta(ge=1, le=100)] = 3
    redis_url: Annotated[
        str,
        describe(
            "Redis or Valkey, as redis://host:port/0 or unix:///path; a cluster as redis+cluster://host:port,host:port",
            check=check_redis,
        ),
    ] = ""
    kafka_brokers: Annotated[
        str,
        describe("Kafka, as host:port,host:port; empty: events stay in PostgreSQL", check=check_brokers),
    ] = ""
    kafka_security_protocol: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"],
        describe("whether TLS and a login are used with Kafka"),
    ] = "PLAINTEXT"
    kafka_sasl_mechanism: Annotated[
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"], describe("how the login to Kafka is made")
    ] = "SCRAM-SHA-512"
    kafka_sasl_username: Annotated[str, describe("user name at Kafka, for SASL_PLAINTEXT and SASL_SSL")] = ""
    kafka_sasl_password: Annotated[str, describe("password at Kafka; best given as _FILE")] = ""
    kafka_ca: Annotated[
        str, describe("certificates that sign the brokers', as PEM; best given as _FILE. Empty: the system's")
    ] = ""
    kafka_certificate: Annotated[str, describe("our own certificate at Kafka, as PEM; best given as _FILE")] = ""
    kafka_key: Annotated[str, describe("private key of our own certificate, as PEM; best given as _FILE")] = ""
    kafka_topic_prefix: Annotated[str, describe("what names of topics and groups begin with", check=check_prefix)] = (
        "payflow."
    )
    kafka_create_topics: Annotated[bool, describe("make topics that Kafka does not have")] = True
    kafka_partitions: Annotated[int, describe("partitions of a topic that is made"), msgspec.Meta(ge=1, le=1000)] = 6
    kafka_replication: Annotated[
        int, describe("copies of a topic that is made; 0: as the brokers have it"), msgspec.Meta(ge=0, le=9)
    ] = 0
    service_keys_dir: Annotated[str, describe("folder with this service's private key and services.jwks.json")] = ""
    log_level: Annotated[Literal["debug", "info", "warning", "error"], describe("least severity logged")] = "info"
    otlp_endpoint: Annotated[
        str,
        describe(
            "where traces and metrics are sent by OTLP over HTTP, as http://HOST:4318; empty: "
            "OTEL_EXPORTER_OTLP_ENDPOINT, else nowhere",
            check=check_endpoint,
        ),
    ] = ""
    traces_per_second: Annotated[
        float,
        describe("traces that one process begins to record per second; errors and reviews are recorded besides"),
        msgspec.Meta(ge=0),
    ] = 10.0
    otlp_metrics_s: Annotated[
        float, describe("seconds between two sendings of metrics; 0: only traces are sent"), msgspec.Meta(ge=0)
    ] = 15.0
    drain_s: Annotated[float, describe("seconds to finish requests at a stop, at most"), msgspec.Meta(ge=0)] = 15.0
    rpc_batches_max: Annotated[int, describe("batches worked on at once, per service"), msgspec.Meta(ge=1)] = 64
    rpc_queue_max: Annotated[int, describe("items waiting per operation and client before 503"), msgspec.Meta(ge=1)] = (
        2000
    )
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

    def otlp_endpoint_in(self, environ: Mapping[str, str]) -> str:
        """Where telemetry is sent; empty: nowhere. OpenTelemetry's own variables count where ours says nothing."""
        if environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
            return ""
        return self.otlp_endpoint or environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")

    def url_of(self, service: str) -> str:
        """The base URL of another service."""
        return str(getattr(self, f"{service}_url"))

    def check(self) -> None:
        """What no setting tells alone: a class of its own settings says here, after this, which do not go together,
        and what production lacks. Raises SettingsError."""
        if self.postgres_pooling == "transaction" and not self.postgres_direct_url:
            raise SettingsError(
                "PAYFLOW_POSTGRES_POOLING=transaction needs PAYFLOW_POSTGRES_DIRECT_URL: PostgreSQL's own address, "
                "past PgBouncer, which cannot carry LISTEN and locks of a session"
            )


def is_secret(name: str) -> bool:
    """Whether a setting's value may not be shown: passwords, keys, secrets, tokens. Folders of them may."""
    return name.endswith(_SECRET_ENDINGS)


def shown(name: str, value: object) -> str:
    """A setting's value as it may be printed: secrets masked, also the password inside an address."""
    if is_secret(name):
        return "********"
    return _URL_PASSWORD.sub(r"\1********@", str(value))


def _field_names(cls: type[msgspec.Struct]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(cls)}


def _is_known(name: str, known: set[str]) -> bool:
    return name in known or (name.endswith("_file") and name.removesuffix("_file") in known)


def _in_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables of ours, as they are written, by the name of the field."""
    return {name.removeprefix(PREFIX).lower(): name for name in environ if name.startswith(PREFIX)}


def read_config_file(environ: Mapping[str, str]) -> dict[str, Any]:
    """The contents of the TOML file that PAYFLOW_CONFIG_FILE names; empty where it names none.

    Raises SettingsError when the file cannot be read.
    """
    path = environ.get(f"{PREFIX}CONFIG_FILE")
    if not path:
        return {}
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{PREFIX}CONFIG_FILE={path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{PREFIX}CONFIG_FILE={path}: {error}") from None


def unknown_settings(environ: Mapping[str, str], classes: Iterable[type[msgspec.Struct]]) -> list[str]:
    """The PAYFLOW_ variables, and the keys of the configuration file, that no service knows; sorted.

    Raises SettingsError when the configuration file cannot be read.
    """
    known = set(LAUNCHER_SETTINGS).union(*(_field_names(cls) for cls in classes))
    variables = [name for field, name in _in_environment(environ).items() if not _is_known(field, known)]
    keys = [key for key in read_config_file(environ) if not _is_known(key, known)]
    return sorted(variables) + sorted(keys)


class Given(NamedTuple):
    """A value that somebody set, and where, as a message names it."""

    value: Any
    source: str


def _read_value_file(source: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{source}={path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{source}={path}: not UTF-8 text") from None


def find_setting(name: str, environ: Mapping[str, str], config: Mapping[str, Any] | None = None) -> Given | None:
    """What was set for a field, the file of a `_FILE` setting read; None where nothing was set.

    The environment wins over the configuration file, and a value over a file with the value. `config` is the
    configuration file where it has been read already. Raises SettingsError for a file that cannot be read.
    """
    variables = _in_environment(environ)
    if name in variables:
        return Given(environ[variables[name]], variables[name])
    if f"{name}_file" in variables:
        source = variables[f"{name}_file"]
        return Given(_read_value_file(source, environ[source]), source)
    config = read_config_file(environ) if config is None else config
    where = f"{name} in {environ.get(f'{PREFIX}CONFIG_FILE')}"
    if name in config:
        return Given(config[name], where)
    if f"{name}_file" in config:
        where = f"{name}_file in {environ.get(f'{PREFIX}CONFIG_FILE')}"
        return Given(_read_value_file(where, str(config[f"{name}_file"])), where)
    return None


def setting_types(cls: type[msgspec.Struct]) -> dict[str, Any]:
    """The types of a class's settings with their descriptions and bounds, by the name of the field."""
    return typing.get_type_hints(cls, include_extras=True)


def description_of(wanted: Any) -> str:
    """What `describe` said in a setting's type; empty where it said nothing."""
    metas = [meta for meta in typing.get_args(wanted)[1:] if isinstance(meta, msgspec.Meta) and meta.description]
    return str(metas[0].description) if metas else ""


def convert_setting(name: str, given: Given, wanted: Any) -> Any:
    """The value of a field in its type. Raises SettingsError naming where it was set and what is expected."""
    if typing.get_origin(wanted) is Annotated and typing.get_args(wanted)[0] is Rate:
        wanted = Rate
    try:
        if wanted is Rate:
            return Rate.parse(str(given.value))
        value = msgspec.convert(given.value, wanted, strict=False)
    except (ValueError, msgspec.ValidationError) as error:
        problem = _in_plain_words(str(error), wanted)
        raise SettingsError(f"{given.source}={shown(name, given.value)!r}: {problem}") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise SettingsError(f"{given.source}={shown(name, given.value)!r}: expected a finite number")
    try:
        for check in _checks_of(wanted):
            check(value)
    except ValueError as error:
        what = given.source if is_secret(name) else f"{given.source}={_shortened(shown(name, given.value))!r}"
        raise SettingsError(f"{what}: {error}") from None
    return value


def _checks_of(wanted: Any) -> Iterator[Callable[[Any], object]]:
    for meta in typing.get_args(wanted)[1:]:
        if isinstance(meta, msgspec.Meta) and meta.extra and _CHECK in meta.extra:
            yield meta.extra[_CHECK]


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_MAX else f"{text[:_SHOWN_MAX]}..."


def _in_plain_words(problem: str, wanted: Any) -> str:
    choices = [choice for part in (wanted, *typing.get_args(wanted)) for choice in _choices(part)]
    if choices:
        return f"expected {' or '.join(choices)}"
    for word, plain in _PLAIN_WORDS.items():
        problem = problem.replace(f"`{word}`", plain)
    return (problem[:1].lower() + problem[1:]).split(", got")[0]


def _choices(part: Any) -> list[str]:
    return [str(choice) for choice in typing.get_args(part)] if typing.get_origin(part) is Literal else []


def read_settings(cls: type[S], environ: Mapping[str, str]) -> S:
    """The settings of one service.

    Raises SettingsError naming the first setting that is malformed or missing, or saying what `check` does. Unknown
    names are looked for across all services by `unknown_settings`, since one environment is often shared.
    """
    config = read_config_file(environ)
    hints = setting_types(cls)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(cls):
        given = find_setting(field.name, environ, config)
        if given is not None:
            values[field.name] = convert_setting(field.name, given, hints[field.name])
        elif field.required:
            raise SettingsError(f"{PREFIX}{field.name.upper()} is not set.")
    read = cls(**values)
    if isinstance(read, CommonSettings):
        read.check()
    return read
