"""Compose's files: every process of the registry, no right too many, all limits together below 4 GB."""

from __future__ import annotations

import re
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from payflow.run.registry import OTHER_BANK, SERVICES, Deployable
from payflow.run.shares import secret_settings
from payflow_dev.deploy.compose import core_yaml, settings_of
from payflow_dev.deploy.environment import env_example
from payflow_dev.deploy.names import container_of, port_of
from payflow_dev.deploy.prometheus import prometheus_yml
from payflow_dev.deploy.yaml import dump

ROOT = Path(__file__).resolve().parents[2]
OBSERVABILITY = (ROOT / "deploy/compose/observability.yaml").read_text(encoding="utf-8")
CORE: dict[str, Any] = yaml.safe_load(core_yaml())["services"]
WATCHERS: dict[str, Any] = yaml.safe_load(OBSERVABILITY)["services"]
EVERYTHING = CORE | WATCHERS
ROWS = (*SERVICES, OTHER_BANK)

PROMISED = [
    "nginx",
    "api-gateway-1",
    "api-gateway-2",
    "confirm-service",
    "risk-service",
    "notification-service",
    "otp-service",
    "account-service",
    "audit-service",
    "ofac-service",
    "kyc-service",
    "partner-bank-service",
    "postgres-db",
    "redis-cache",
    "kafka",
    "otel-collector",
    "jaeger",
    "prometheus",
    "alertmanager",
    "blackbox-exporter",
    "postgres-exporter",
    "redis-exporter",
    "node-exporter",
    "grafana",
    "elasticsearch",
    "kibana",
]


@pytest.mark.parametrize("name", PROMISED)
def test_every_part_has_the_name_that_users_know_and_a_profile(name: str) -> None:
    assert EVERYTHING[name]["profiles"] == (["core"] if name in CORE else ["observability"])


def test_both_profiles_are_started_without_a_flag() -> None:
    lines = [line for line in (ROOT / ".env").read_text(encoding="utf-8").splitlines() if not line.startswith("#")]

    assert lines == ["COMPOSE_PROFILES=core,observability"]


@pytest.mark.parametrize(
    ("port", "name"), [(16686, "jaeger"), (9090, "prometheus"), (3000, "grafana"), (5601, "kibana")]
)
def test_the_watchers_are_where_users_look_and_on_this_machine_only(port: int, name: str) -> None:
    assert EVERYTHING[name]["ports"] == [f"${{BIND_ADDRESS:-127.0.0.1}}:{port}:{port}"]


def test_only_the_edge_and_the_watchers_are_reached_from_outside() -> None:
    published = {name for name, service in EVERYTHING.items() if service.get("ports")}

    assert published == {"nginx", "jaeger", "prometheus", "alertmanager", "grafana", "kibana", "elasticsearch"}


def test_all_limits_together_are_within_four_gigabytes() -> None:
    limits = {name: service["deploy"]["resources"]["limits"]["memory"] for name, service in EVERYTHING.items()}
    runs_on = {name for name, service in EVERYTHING.items() if "restart" in service}

    assert all(re.fullmatch(r"\d+M", limit) for limit in limits.values())
    assert runs_on == {*PROMISED, "other-bank"}
    assert sum(int(limits[name][:-1]) for name in runs_on) <= 4096


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_service_has_its_own_secrets_its_own_role_and_no_right_that_it_does_not_need(row: Deployable) -> None:
    service = CORE[container_of(row)]
    mounted = [volume.split(":")[0] for volume in service["volumes"]]

    assert service["command"][:2] == ["serve", row.name]
    assert mounted[0] == f"secrets-{row.service.replace('_', '-')}"
    assert sum(name.startswith("secrets-") for name in mounted) == 1
    assert "operator" not in mounted
    assert service["volumes"][0].endswith(":ro")
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "user" not in service  # the image's, which is not root
    assert service["healthcheck"]["test"][-1] == str(port_of(row))
    assert service["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert any(f"postgresql://payflow_{row.service}@" in line for line in service["environment"])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_service_gets_settings_that_it_knows_and_every_secret_as_a_file(row: Deployable) -> None:
    names = [line.partition("=")[0] for line in CORE[container_of(row)]["environment"]]
    fields = {field.name for field in msgspec.structs.fields(settings_of(row))}

    assert len(names) == len(set(names))
    assert {name.removeprefix("PAYFLOW_").removesuffix("_FILE").lower() for name in names} <= fields
    assert {f"PAYFLOW_{name.upper()}_FILE" for name in secret_settings(row)} <= set(names)
    assert not any(f"PAYFLOW_{name.upper()}" in names for name in secret_settings(row))


def test_every_folder_that_secrets_are_shared_into_is_in_the_image_so_that_its_user_may_write_there() -> None:
    # Docker makes a volume the way the image has the place where it is mounted, and root's where there is none.
    made = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    mounted = [
        volume.split(":")[1] for volume in CORE["secrets"]["volumes"] if volume.split(":")[1] != "/var/lib/payflow"
    ]
    named = {f"/shares/{row.service}" for row in ROWS}  # by the registry

    assert "service_names((*SERVICES, OTHER_BANK))" in made
    assert [place for place in mounted if place not in named and f" {place} " not in made] == []


def test_a_gateway_believes_the_edge_and_nobody_else() -> None:
    (edge,) = {network["ipv4_address"] for network in CORE["nginx"]["networks"].values()}

    for row in SERVICES:
        believed = [line for line in CORE[container_of(row)]["environment"] if "TRUSTED_PROXIES" in line]
        assert believed == ([f"PAYFLOW_TRUSTED_PROXIES={edge}/32"] if row.is_gateway else [])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_traces_go_to_the_collector_in_a_network_that_both_are_in(row: Deployable) -> None:
    service, collector = CORE[container_of(row)], WATCHERS["otel-collector"]
    receivers = yaml.safe_load((ROOT / "deploy/otel/collector.yaml").read_text(encoding="utf-8"))["receivers"]
    port = receivers["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]

    # An empty value in `.env` is a value: nowhere.
    assert f"PAYFLOW_OTLP_ENDPOINT=${{PAYFLOW_OTLP_ENDPOINT-http://otel-collector:{port}}}" in service["environment"]
    assert "PAYFLOW_OTLP_METRICS_S=${PAYFLOW_OTLP_METRICS_S-0}" in service["environment"]
    assert set(service["networks"]) & set(collector["networks"])


def test_the_edges_fixed_addresses_are_not_among_those_that_docker_gives_away() -> None:
    (network,) = yaml.safe_load(core_yaml())["networks"]["edge"]["ipam"]["config"]
    subnet = ip_network(re.sub(r"\$\{EDGE_PREFIX:-([0-9.]+)\}", r"\1", network["subnet"]))

    for pool in ("172.16.0.0/12", "192.168.0.0/16"):
        assert not subnet.overlaps(ip_network(pool))


def test_every_image_has_a_tag_of_its_own_choice() -> None:
    images = {service["image"] for service in EVERYTHING.values()}

    assert all(re.fullmatch(r"[a-z0-9/_-]+:(v?\d[\w.-]*|\$\{IMAGE_TAG:-local\})", image) for image in images), images


def test_every_variable_is_explained() -> None:
    files = [core_yaml(), OBSERVABILITY]
    used = {name for text in files for name in re.findall(r"\$\{(\w+):", text)}
    passed = {line for row in ROWS for line in CORE[container_of(row)]["environment"] if "=" not in line}
    explained = set(re.findall(r"^#(\w+)=", env_example(), re.MULTILINE))

    missing = {name for name in used | passed if name not in explained and name.removesuffix("_FILE") not in explained}

    assert missing == set()
    assert {"POSTGRES_ADDRESS", "PAYFLOW_REDIS_URL", "PAYFLOW_KAFKA_BROKERS", "PAYFLOW_RISK_URL"} <= explained


def test_prometheus_asks_every_process() -> None:
    (job,) = [job for job in yaml.safe_load(prometheus_yml())["scrape_configs"] if job["job_name"] == "payflow"]

    asked = {entry["labels"]["process"]: entry["targets"] for entry in job["static_configs"]}

    assert asked == {row.name: [f"{container_of(row)}:{port_of(row)}"] for row in SERVICES}


@pytest.mark.parametrize(
    "value",
    [
        {"a": "text", "b": "80:80", "c": "on", "d": "", "e": "1", "f": None, "g": True, "h": 3},
        {"list": ["a", "yes", "x: y", "# no comment", "quote \" and ' and \\"]},
        {"long": ["x" * 60, "y" * 60, "${VAR:-default}"]},
        {"nested": {"map": {"a": {}, "b": []}, "maps": [{"a": 1, "b": {"c": ["d"]}}, {"e": "f"}]}},
        {"*star": "&anchor", "!tag": "%x", "~": "@at", "null": "null"},
    ],
)
def test_what_is_written_is_what_is_read(value: dict[str, Any]) -> None:
    assert yaml.safe_load(dump(value)) == value


@pytest.mark.parametrize("text", ["1e3", "0o17", "1.5", ".5", "0400", "12:30:45", "no"])
def test_texts_that_some_reader_takes_for_something_else_are_quoted(text: str) -> None:
    assert dump({"a": text}) in (f'a: "{text}"\n', f"a: '{text}'\n")
