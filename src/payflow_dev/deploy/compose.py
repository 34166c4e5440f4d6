"""deploy/compose/core.yaml: the edge, the services and what they stand on, one container each."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from payflow.platform.settings import CommonSettings, is_secret
from payflow.run.registry import OTHER_BANK, SERVICES, Deployable
from payflow.run.shares import KEYS, PASSWORD, secret_settings
from payflow.run.supervisor.settings import settings_class
from payflow_dev.deploy.names import GENERATED, container_of, port_of
from payflow_dev.deploy.stores import STORES, confined
from payflow_dev.deploy.yaml import Block, dump

ROWS: Final = (*SERVICES, OTHER_BANK)
IMAGE: Final = "payflow:${IMAGE_TAG:-local}"
SECRETS: Final = "/run/payflow"
DATA: Final = "/var/lib/payflow"
_TMP: Final = "/tmp/"  # noqa: S108 - in a container, which has it for itself
# Where the one container that makes the secrets sees the folder of each service.
SHARES: Final = "/shares"
# Addresses on the edge's network are fixed: NGINX looks a gateway's up once, and a gateway may come back. They are from
# outside the ranges out of which Docker gives other networks theirs (172.17 to 172.31, 192.168), one after the other.
EDGE_PREFIX: Final = "10.214.240"
_EDGE: Final = f"${{EDGE_PREFIX:-{EDGE_PREFIX}}}"
_EDGE_NUMBER_NGINX: Final = 10
_DATABASE: Final = "${POSTGRES_ADDRESS:-postgres-db:5432}/${POSTGRES_DATABASE:-payflow}"
_DIRECT_DATABASE: Final = (
    "${POSTGRES_DIRECT_ADDRESS:-${POSTGRES_ADDRESS:-postgres-db:5432}}/${POSTGRES_DATABASE:-payflow}"
)
_BASE_IMAGE: Final = "${BASE_IMAGE:-python:3.14-slim-bookworm}"

# Megabytes, from what each was seen to need, with a third as much again or more. The limits of everything together,
# what watches it included, stay within 4 GB; what runs once and ends is not counted.
_MEMORY_MB: Final = {"gateway": 168, "confirm": 104, "notification": 104, "ofac": 128, "partner_bank": 96}
_MEMORY_OTHERS_MB: Final = 88

# What Compose says where `.env` says nothing: traces go to the collector, which may be there or not; metrics are
# scraped, and would be counted twice if they were sent as well. An empty value in `.env` switches the sending off.
TELEMETRY: Final[Mapping[str, str]] = {
    "PAYFLOW_OTLP_ENDPOINT": "http://otel-collector:4318",
    "PAYFLOW_OTLP_METRICS_S": "0",
}

# Settings that this file gives, or that have no meaning in a container; every other one can be set in `.env`.
_GIVEN: Final = frozenset(
    {
        "data_dir",
        "host",
        "port",
        "postgres_url",
        "postgres_password",
        "redis_url",
        "service_keys_dir",
        "token_keys_dir",
        "audit_heads_dir",
        "trusted_proxies",
        "drain_s",
        "kafka_brokers",
        *(f"{row.service}_url" for row in ROWS),
    }
)


def core_yaml() -> str:
    """The whole file."""
    services: Block = {
        "nginx": _nginx(),
        **{container_of(row): _service(row) for row in ROWS},
        "secrets": _secrets(),
        "migrate": _migrate(),
        "demo-data": _demo_data(),
        "payflow": _command_line(),
        **STORES,
    }
    document: Block = {"services": services, "networks": _NETWORKS, "volumes": {name: {} for name in _volumes()}}
    return f"{GENERATED}\n# docs/howto/run-with-compose.md says how it is used.\n{dump(document)}"


def memory_mb() -> dict[str, int]:
    """The limit of each service's container in megabytes."""
    return {container_of(row): _MEMORY_MB.get(row.service, _MEMORY_OTHERS_MB) for row in ROWS}


def passed_on(row: Deployable) -> list[str]:
    """The settings of a service that come from `.env` where they are set there."""
    given = _GIVEN | set(secret_settings(row))
    names = []
    for field in msgspec.structs.fields(settings_of(row)):
        if field.name not in given:
            name = f"PAYFLOW_{field.name.upper()}"
            names += [] if name in TELEMETRY else [name]
            # A secret may be given as a file that an override of this file mounts.
            names += [f"{name}_FILE"] if is_secret(field.name) else []
    return names


def settings_of(row: Deployable) -> type[CommonSettings]:
    """The class of a service's settings."""
    return settings_class(importlib.import_module(row.module))


def _fields_of(row: Deployable) -> set[str]:
    return {field.name for field in msgspec.structs.fields(settings_of(row))}


def _service(row: Deployable) -> Block:
    networks: Any = ["backend", "data"]
    if row.is_gateway:
        networks = {"edge": {"ipv4_address": f"{_EDGE}.{_edge_number(row)}"}, "backend": {}, "data": {}}
    volumes = [f"secrets-{_dashed(row)}:{SECRETS}:ro"]
    if row.is_gateway:
        volumes.append(f"token-keys:{DATA}/token_keys")
    if row.service == "audit":
        volumes.append(f"audit-heads:{DATA}/audit-heads")
    return {
        **_from_image(memory_mb()[container_of(row)]),
        "command": ["serve", row.name, "--instance", row.name],
        "environment": _environment(row),
        "volumes": volumes,
        "networks": networks,
        "depends_on": _needs(row),
        "restart": "unless-stopped",
        "stop_grace_period": "10s",
        "healthcheck": {
            "test": ["CMD", "/opt/payflow/bin/python", "-I", "-S", "/opt/payflow/probe.py", str(port_of(row))],
            "interval": "5s",
            "timeout": "5s",
            "retries": 6,
            # A dozen processes start at once, on a laptop with two cores.
            "start_period": "180s",
        },
    }


def _environment(row: Deployable) -> list[str]:
    """What this file says of a service's settings, then those that `.env` may say, without a value."""
    fixed = {
        "PAYFLOW_PORT": str(port_of(row)),
        "PAYFLOW_POSTGRES_URL": f"postgresql://payflow_{row.service}@{_DATABASE}",
        "PAYFLOW_POSTGRES_PASSWORD_FILE": f"{SECRETS}/{PASSWORD}",
        "PAYFLOW_REDIS_URL": "${PAYFLOW_REDIS_URL:-redis://redis-cache:6379/0}",
        "PAYFLOW_SERVICE_KEYS_DIR": f"{SECRETS}/{KEYS}",
        "PAYFLOW_DRAIN_S": "5",
        **{name: f"${{{name}-{value}}}" for name, value in TELEMETRY.items()},
        **addresses(),
        **{f"PAYFLOW_{name.upper()}_FILE": f"{SECRETS}/{file}" for name, file in secret_settings(row).items()},
    }
    if row.is_gateway:
        fixed["PAYFLOW_TOKEN_KEYS_DIR"] = f"{DATA}/token_keys"
        fixed["PAYFLOW_TRUSTED_PROXIES"] = f"{_EDGE}.{_EDGE_NUMBER_NGINX}/32"
    if row.service == "audit":
        fixed["PAYFLOW_AUDIT_HEADS_DIR"] = f"{DATA}/audit-heads"
    if "kafka_brokers" in _fields_of(row):
        fixed["PAYFLOW_KAFKA_BROKERS"] = "${PAYFLOW_KAFKA_BROKERS:-kafka:9092}"
    # A setting that is only another service's would make this one import all of them, to see whether one knows it.
    known = {f"PAYFLOW_{name.upper()}{end}" for name in _fields_of(row) for end in ("", "_FILE")}
    return [*_assigned({name: value for name, value in fixed.items() if name in known}), *passed_on(row)]


def addresses() -> dict[str, str]:
    """Where each service is; of the gateway the first one."""
    found: dict[str, str] = {}
    for row in ROWS:
        if f"{row.service}_url" in _fields_of(row) or row is OTHER_BANK:
            name = f"PAYFLOW_{row.service.upper()}_URL"
            found.setdefault(name, f"${{{name}:-http://{container_of(row)}:{port_of(row)}}}")
    return found


def _needs(row: Deployable) -> Block:
    needs: Block = {
        "migrate": {"condition": "service_completed_successfully"},
        "redis-cache": {"condition": "service_healthy"},
    }
    if "kafka_brokers" in _fields_of(row):
        needs["kafka"] = {"condition": "service_healthy"}
    return needs


def _from_image(limit_mb: int) -> Block:
    """What all containers of our image have in common: no right that they do not need."""
    return {
        "image": IMAGE,
        # Built for `secrets`, which starts first.
        "pull_policy": "never",
        "profiles": ["core"],
        **confined(limit_mb),
        "tmpfs": [f"{_TMP}:size=16m,mode=1777"],
    }


def _secrets() -> Block:
    """Makes keys and passwords at the first start, and gives each service its own."""
    shares = [*(f"secrets-{_dashed(row)}:{SHARES}/{row.service}" for row in _one_of_each()), *_FURTHER_SHARES]
    image = {name: value for name, value in _from_image(128).items() if name != "pull_policy"}
    return {
        **image,
        "build": {
            "context": "../..",
            "dockerfile": "deploy/Dockerfile",
            # The product and the simulated other bank; `product` is the product alone.
            "target": "${IMAGE_TARGET:-demo}",
            "args": {"BASE_IMAGE": _BASE_IMAGE, "PIP_INDEX_URL": None},
        },
        "command": ["secrets", f"{DATA}/secrets", "--shares", SHARES, "--host", "${TLS_HOST:-localhost}"],
        # The password of a PostgreSQL that is somebody's own; one is made where this is empty.
        "environment": _assigned({"PAYFLOW_DATA_DIR": DATA, "PAYFLOW_POSTGRES_PASSWORD": "${POSTGRES_PASSWORD:-}"}),
        "volumes": [f"operator:{DATA}", *shares],
        "network_mode": "none",
        "healthcheck": {"disable": True},
    }


def _migrate() -> Block:
    return {
        **_from_image(128),
        "command": ["migrate", "--passwords-dir", f"{DATA}/secrets/roles"],
        "environment": _assigned(_owner()),
        "volumes": [f"operator:{DATA}:ro"],
        # The second has a way out, to a PostgreSQL that is somebody's own.
        "networks": ["data", "backend"],
        "depends_on": {
            "secrets": {"condition": "service_completed_successfully"},
            "postgres-db": {"condition": "service_healthy"},
        },
        "healthcheck": {"disable": True},
    }


def _demo_data() -> Block:
    """What `payflow up` loads at its first start; a repeat changes nothing."""
    return {
        **_from_image(128),
        "command": ["demo-data", "--if-allowed"],
        "environment": _assigned(_operator()),
        "volumes": [f"operator:{DATA}"],
        "networks": ["backend"],
        "depends_on": {container_of(row): {"condition": "service_healthy"} for row in SERVICES},
        "healthcheck": {"disable": True},
    }


def _command_line() -> Block:
    """`docker compose run --rm payflow otp TRANSACTION_ID`: the command line, as whoever operates all this."""
    return {
        **_from_image(256),
        "profiles": ["tools"],
        "command": ["--help"],
        "environment": _assigned(_operator() | _owner()),
        "volumes": [f"operator:{DATA}", f"audit-heads:{DATA}/audit-heads:ro"],
        "networks": ["backend", "data"],
        "healthcheck": {"disable": True},
    }


def _owner() -> dict[str, str]:
    return {
        "PAYFLOW_ENV": "${PAYFLOW_ENV:-development}",
        # Past PgBouncer, if there is one: what is changed here needs one session.
        "PAYFLOW_POSTGRES_URL": f"postgresql://${{POSTGRES_OWNER:-payflow}}@{_DIRECT_DATABASE}",
        "PAYFLOW_POSTGRES_PASSWORD_FILE": f"{DATA}/secrets/postgres_owner",
    }


def _operator() -> dict[str, str]:
    return {
        "PAYFLOW_ENV": "${PAYFLOW_ENV:-development}",
        "PAYFLOW_DATA_DIR": DATA,
        "PAYFLOW_SERVICE_KEYS_DIR": f"{DATA}/secrets/services",
        **addresses(),
    }


def _nginx() -> Block:
    gateways = [row for row in ROWS if row.is_gateway]
    return {
        "image": "nginx:1.28-alpine",
        "profiles": ["core"],
        "user": "10001:10001",
        "command": ["nginx", "-p", _TMP, "-c", "/etc/payflow/nginx/nginx.conf"],
        "ports": ["${HTTP_PORT:-80}:8080", "${HTTPS_PORT:-443}:8443"],
        "volumes": ["../nginx:/etc/payflow/nginx:ro", "${TLS_DIR:-tls}:/etc/payflow/tls:ro"],
        "networks": {"edge": {"ipv4_address": f"{_EDGE}.{_EDGE_NUMBER_NGINX}"}},
        # So that it starts, too, while a gateway is away.
        "extra_hosts": [f"{container_of(row)}:{_EDGE}.{_edge_number(row)}" for row in gateways],
        "depends_on": {
            **{container_of(row): {"condition": "service_healthy"} for row in gateways},
            # The door is opened when there is somebody to sign in.
            "demo-data": {"condition": "service_completed_successfully"},
        },
        "tmpfs": [f"{_TMP}:size=16m,uid=10001,gid=10001"],
        **confined(44),
        "restart": "unless-stopped",
        "stop_signal": "SIGQUIT",
        "stop_grace_period": "10s",
        "healthcheck": {
            "test": ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1:8080/live"],
            "interval": "5s",
            "timeout": "3s",
            "retries": 6,
            "start_period": "10s",
        },
    }


def _edge_number(row: Deployable) -> int:
    return _EDGE_NUMBER_NGINX + row.port_offset


def _one_of_each() -> Iterable[Deployable]:
    return {row.service: row for row in ROWS}.values()


def _dashed(row: Deployable) -> str:
    return row.service.replace("_", "-")


def _assigned(values: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items()]


def _volumes() -> list[str]:
    kept = ["operator", "token-keys", "audit-heads", "postgres", "kafka", "tls", "secrets-postgres", "secrets-monitor"]
    return [*kept, *(f"secrets-{_dashed(row)}" for row in _one_of_each())]


_FURTHER_SHARES: Final = (
    f"secrets-postgres:{SHARES}/postgres",
    f"secrets-monitor:{SHARES}/monitor",
    f"tls:{SHARES}/tls",
)
_NETWORKS: Final[Block] = {
    "edge": {"ipam": {"config": [{"subnet": f"{_EDGE}.0/24"}]}},
    "backend": {},
    # What holds data, and nobody who has not to do with it.
    "data": {"internal": True},
}
