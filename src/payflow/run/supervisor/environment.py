"""The settings that a service's process gets: what the user set, completed by what the instance knows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlunsplit

from payflow.platform.addresses import split_address
from payflow.platform.pooling import as_user_of
from payflow.platform.settings import SettingsError, find_setting
from payflow.run.errors import StartError
from payflow.run.instance import SERVICE_HOST, Instance
from payflow.run.registry import Deployable

KAFKA_USER: Final = "payflow"
# The owner's ways in: no service may inherit them.
_OWNERS: Final = (
    "PAYFLOW_POSTGRES_PASSWORD",
    "PAYFLOW_POSTGRES_URL_FILE",
    "PAYFLOW_POSTGRES_DIRECT_URL_FILE",
    "PAYFLOW_POSTGRES_REPLICA_URL_FILE",
    "PAYFLOW_REDIS_URL_FILE",
)


@dataclass(frozen=True, slots=True)
class Backends:
    """Where the databases are. The PostgreSQL addresses are the owner's; a service gets them with its own role.

    `postgres_direct_url`: PostgreSQL itself where the other address is PgBouncer's, else empty.
    `postgres_replica_url`: where reads may go that may be a little old, else empty.
    `kafka`: the settings of the instance's own Kafka; empty where there is none, or the user's is used.
    """

    postgres_owner_url: str
    redis_url: str
    postgres_direct_url: str = ""
    postgres_replica_url: str = ""
    kafka: Mapping[str, str] = field(default_factory=dict)

    def postgres_settings_for(self, service: str) -> dict[str, str]:
        """The owner's addresses with the service's role in place of the owner and without a password."""
        urls = {
            "PAYFLOW_POSTGRES_URL": self.postgres_owner_url,
            "PAYFLOW_POSTGRES_DIRECT_URL": self.postgres_direct_url,
            "PAYFLOW_POSTGRES_REPLICA_URL": self.postgres_replica_url,
        }
        return {name: with_user(url, f"payflow_{service}") for name, url in urls.items() if url}


def with_user(url: str, user: str, password: str | None = None) -> str:
    """A database address as another user."""
    parts = split_address(url)
    place = parts.netloc.rpartition("@")[2]
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    return urlunsplit(parts._replace(netloc=f"{login}@{place}"))


def setting(name: str, environ: Mapping[str, str] | None = None) -> str | None:
    """A setting of the user's, from PAYFLOW_<name>, a file that it names, or the configuration file; None where empty.

    Raises StartError when a file cannot be read.
    """
    try:
        given = find_setting(name.lower(), os.environ if environ is None else environ)
    except SettingsError as error:
        raise StartError(f"{error}.") from error
    return None if given is None else str(given.value) or None


def kafka_client_settings(*, brokers: str, password_file: Path) -> dict[str, str]:
    """The settings by which services use a Kafka of the instance's own; its ports are open to the whole machine."""
    return {
        "PAYFLOW_KAFKA_BROKERS": brokers,
        "PAYFLOW_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "PAYFLOW_KAFKA_SASL_MECHANISM": "PLAIN",
        "PAYFLOW_KAFKA_SASL_USERNAME": KAFKA_USER,
        "PAYFLOW_KAFKA_SASL_PASSWORD_FILE": str(password_file),
    }


def is_production(environ: Mapping[str, str] | None = None) -> bool:
    """Whether demo data, demo secrets and embedded parts are forbidden. Raises StartError for another word."""
    env = setting("ENV", environ) or "development"
    if env not in ("development", "production"):
        raise StartError(f"PAYFLOW_ENV={env}: choose development or production.")
    return env == "production"


def external_postgres() -> str | None:
    """The address of the user's own PostgreSQL as its owner, password included; None where ours is to be used.

    PostgreSQL itself, where services reach it through PgBouncer: migrations keep a lock, checks a snapshot.
    """
    return direct_postgres() or _owners_url("POSTGRES_URL")


def pooled_postgres() -> str | None:
    """The address by which services reach the user's own PostgreSQL, which may be PgBouncer's; as its owner."""
    return _owners_url("POSTGRES_URL")


def replica_postgres() -> str | None:
    """The address of a replica of the user's own PostgreSQL; None where none is set."""
    url = _owners_url("POSTGRES_REPLICA_URL")
    if url is not None and setting("POSTGRES_URL") is None:
        raise StartError("PAYFLOW_POSTGRES_REPLICA_URL goes beside PAYFLOW_POSTGRES_URL, which is not set.")
    return url


def direct_postgres() -> str | None:
    """PostgreSQL's own address as its owner, where POSTGRES_URL is PgBouncer's; None where none is set."""
    url, pooled = _owners_url("POSTGRES_DIRECT_URL"), _owners_url("POSTGRES_URL")
    if url is not None and pooled is None:
        raise StartError("PAYFLOW_POSTGRES_DIRECT_URL goes beside PAYFLOW_POSTGRES_URL, which is not set.")
    return None if url is None or pooled is None else as_user_of(url, pooled)


def _owners_url(name: str) -> str | None:
    url = setting(name)
    if url is None:
        return None
    parts = split_address(url)
    if parts.scheme not in ("postgresql", "postgres"):
        raise StartError(f"PAYFLOW_{name} must begin with postgresql:// and name a database.")
    password = setting("POSTGRES_PASSWORD")
    if parts.username and not parts.password and password:
        return with_user(url, unquote(parts.username), password)
    return url


def service_environment(
    *,
    instance: Instance,
    row: Deployable,
    rows: Sequence[Deployable],
    backends: Backends,
    secrets: Mapping[str, str],
) -> dict[str, str]:
    """The whole environment of one service's process. `secrets` are the settings that name the instance's secrets."""
    environ = {name: value for name, value in os.environ.items() if name not in _OWNERS} | dict(secrets)
    # Backwards, so that of two rows of one service the first gives the address.
    for other in reversed(rows):
        name = f"PAYFLOW_{other.service.upper()}_URL"
        if setting(f"{other.service.upper()}_URL") is None:
            environ[name] = instance.callers_url(other)
    return environ | {
        "PAYFLOW_DATA_DIR": str(instance.data_dir),
        **backends.postgres_settings_for(row.service),
        "PAYFLOW_POSTGRES_PASSWORD_FILE": str(instance.password_file(row.service)),
        "PAYFLOW_REDIS_URL": backends.redis_url,
        "PAYFLOW_HOST": SERVICE_HOST,
        "PAYFLOW_PORT": str(instance.service_port(row)),
        **backends.kafka,
    }
