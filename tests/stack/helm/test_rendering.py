"""The chart renders for each set of values, and every object is what Kubernetes' own schemas allow."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.stack.helm.chart import CHANNEL, CHART, KUBERNETES, ROOT, SETS, manifests, run_helm, template

# Kinds of other projects, whose schemas Kubernetes does not know.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ExternalSecret"}


@pytest.mark.parametrize("name", SETS)
def test_helm_has_nothing_against_it(name: str) -> None:
    files, values = SETS[name]
    options = [option for file in files for option in ("--values", str(CHART / file))]
    options += [option for value in (*CHANNEL, *values) for option in ("--set", value)]

    done = run_helm("lint", str(CHART), "--strict", "--kube-version", f"{KUBERNETES}.0", *options)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stdout
    assert "[ERROR]" not in done.stdout


@pytest.mark.parametrize("name", SETS)
def test_every_object_is_valid_by_kubernetes_own_schemas(name: str) -> None:
    objects = manifests(*SETS[name])

    for entry in objects:
        if entry["kind"] not in FOREIGN:
            kubernetes_validate.validate(entry, KUBERNETES, strict=True)
    assert len(objects) > 30


def test_the_validation_finds_a_mistyped_field() -> None:
    (deployment, *_) = [entry for entry in manifests() if entry["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["imagPullPolicy"] = "Always"

    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, KUBERNETES, strict=True)


@pytest.mark.parametrize("name", SETS)
def test_no_two_objects_have_one_name(name: str) -> None:
    names = [(entry["kind"], entry["metadata"]["name"]) for entry in manifests(*SETS[name])]

    assert len(names) == len(set(names))


def test_the_oldest_version_that_the_chart_allows_knows_every_field_but_those_of_later_ones() -> None:
    for entry in manifests():
        kubernetes_validate.validate(entry, "1.30", strict=True)


def test_an_older_cluster_is_refused() -> None:
    done = run_helm("template", "payflow", str(CHART), "--kube-version", "1.29.0")

    assert done.returncode != 0
    assert "kubeVersion: >=1.30.0-0" in done.stderr


def test_large_numbers_reach_the_processes_as_numbers() -> None:
    objects = manifests(values=("settings.PAYFLOW_REVIEW_DEADLINE_S=2592000", "settings.PAYFLOW_DUE_CHECK_S=0.25"))

    (config,) = [entry for entry in objects if entry["kind"] == "ConfigMap"]
    assert config["data"]["PAYFLOW_REVIEW_DEADLINE_S"] == "2592000"
    assert config["data"]["PAYFLOW_DUE_CHECK_S"] == "0.25"


def test_numbers_of_a_values_file_reach_the_processes_as_numbers(tmp_path: Any) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("settings:\n  PAYFLOW_REVIEW_DEADLINE_S: 2592000\n  PAYFLOW_DEMO_CHANNEL: false\n")

    objects = manifests(files=(str(file),))

    (config,) = [entry for entry in objects if entry["kind"] == "ConfigMap"]
    assert config["data"]["PAYFLOW_REVIEW_DEADLINE_S"] == "2592000"
    assert config["data"]["PAYFLOW_DEMO_CHANNEL"] == "false"


def test_a_release_of_another_name_renders_names_of_its_own() -> None:
    channel = [option for value in CHANNEL for option in ("--set", value)]

    done = run_helm("template", "blue", str(CHART), "--kube-version", f"{KUBERNETES}.0", *channel)

    names = {entry["metadata"]["name"] for entry in yaml.safe_load_all(done.stdout) if entry}
    assert "blue-payflow-account" in names
    assert not {name for name in names if not name.startswith("blue-payflow")}


def test_a_changed_setting_replaces_the_pods() -> None:
    before = template()
    after = template(values=("settings.PAYFLOW_LOG_LEVEL=debug",))

    def checksums(text: str) -> set[str]:
        return {line.strip() for line in text.splitlines() if "checksum/settings:" in line}

    assert checksums(before.stdout).isdisjoint(checksums(after.stdout))


def test_alerts_are_the_ones_that_prometheus_is_given() -> None:
    rule = {entry["kind"]: entry for entry in manifests(*SETS["everything"])}["PrometheusRule"]

    given = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yml").read_text(encoding="utf-8"))

    # All but what exporters see: in a cluster those would be other people's servers.
    given["groups"] = [group for group in given["groups"] if group["name"] != "payflow-servers"]
    assert rule["spec"] == given


def test_examples_of_dependencies_are_yaml_with_a_kind_and_a_name() -> None:
    files = sorted((ROOT / "deploy/helm/examples").glob("*.yaml"))

    assert files
    for file in files:
        for document in yaml.safe_load_all(file.read_text(encoding="utf-8")):
            if not file.name.endswith("-values.yaml"):
                assert document["kind"], file.name
                assert document["metadata"]["name"], file.name


def test_behind_pgbouncer_the_migration_goes_past_it() -> None:
    direct = "postgresql://payflow-db-rw:5432/payflow?sslmode=require"
    values = ("settings.PAYFLOW_POSTGRES_POOLING=transaction", f"settings.PAYFLOW_POSTGRES_DIRECT_URL={direct}")
    objects = manifests(values=values)
    (job,) = [entry for entry in objects if entry["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert {"name": "PAYFLOW_POSTGRES_DIRECT_URL", "value": direct} in container["env"]


def test_a_valkey_cluster_is_an_address_like_any_other() -> None:
    address = "redis+cluster://valkey-0:6379"
    (settings,) = [
        entry
        for entry in manifests(values=(f"redis.url={address}",))
        if entry["kind"] == "ConfigMap" and "PAYFLOW_ENV" in entry["data"]
    ]

    assert settings["data"]["PAYFLOW_REDIS_URL"] == address
