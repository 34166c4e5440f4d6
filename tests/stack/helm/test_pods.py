"""What every pod of the chart has: the least rights, its own secrets, known settings, an end that loses nothing."""

from __future__ import annotations

import json
import math
import os
from typing import Any

import pytest

from payflow.run.commands.serve import checked_settings
from payflow.run.registry import SERVICES, deployables, find, service_names
from payflow.run.secrets import make_secrets
from payflow.run.supervisor.settings import check_names, settings_class
from payflow_dev.deploy.helm import FILES, dashed, rows
from tests.stack.helm.chart import SETS, environment, manifests, of_kind, pods

pytestmark = pytest.mark.parametrize("name", SETS)


def test_every_pod_is_as_restricted_as_pod_security_knows(name: str) -> None:
    found = list(pods(manifests(*SETS[name])))

    assert len(found) >= 11
    for owner, pod in found:
        assert pod["securityContext"]["runAsNonRoot"] is True, owner
        assert pod["securityContext"]["runAsUser"] > 0, owner
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, owner
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), owner
        for container in [*pod["containers"], *pod.get("initContainers", ())]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, owner
        assert {next(iter(set(volume) - {"name"})) for volume in pod["volumes"]} <= {
            "secret",
            "projected",
            "emptyDir",
            "persistentVolumeClaim",
        }, owner


def test_no_pod_has_the_api_servers_token_or_variables_of_other_services(name: str) -> None:
    for owner, pod in pods(manifests(*SETS[name])):
        assert pod["automountServiceAccountToken"] is False, owner
        assert pod["enableServiceLinks"] is False, owner


def test_every_pod_says_what_it_takes_and_is_bounded_in_memory(name: str) -> None:
    for owner, pod in pods(manifests(*SETS[name])):
        for container in pod["containers"]:
            assert container["resources"]["requests"]["cpu"], owner
            assert container["resources"]["requests"]["memory"], owner
            assert container["resources"]["limits"]["memory"], owner


def test_each_service_is_one_deployment_and_the_gateways_are_replicas(name: str) -> None:
    deployments = of_kind(manifests(*SETS[name]), "Deployment")

    assert set(deployments) - {"cli"} == {dashed(service) for service in service_names(SERVICES)}


def test_every_variable_is_a_setting_that_payflow_knows(name: str) -> None:
    objects = manifests(*SETS[name])
    classes = [settings_class(__import__(row.module, fromlist=["app"])) for row in deployables(is_production=True)]

    for owner, pod in pods(objects):
        ours = {key: value for key, value in environment(objects, pod).items() if key != "POD_NAME"}
        assert ours, owner
        assert all(key.startswith("PAYFLOW_") for key in ours), owner
        check_names(ours, classes)


def test_each_service_accepts_the_environment_that_it_gets(
    name: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("secrets")
    make_secrets(folder, service_names(SERVICES))
    for service in service_names(SERVICES):
        (folder / f"postgres_{service}").write_text("x")
    (folder / "inbound_secret").write_text("y")
    objects = manifests(*SETS[name])
    for variable in [key for key in os.environ if key.startswith("PAYFLOW_")]:
        monkeypatch.delenv(variable)

    for service, row in rows().items():
        given = environment(objects, of_kind(objects, "Deployment")[service]["spec"]["template"]["spec"])
        with monkeypatch.context() as patch:
            for key, value in given.items():
                patch.setenv(
                    key, value.replace("/etc/payflow/secrets", str(folder)).replace("/etc/payflow", str(folder))
                )
            settings = checked_settings(row)
        assert settings.env == "production"
        assert settings.port == 3000 + row.port_offset


def test_each_file_that_a_setting_names_is_mounted_and_its_secret_has_that_key(name: str) -> None:
    for owner, pod in pods(manifests(*SETS[name])):
        (container,) = pod["containers"]
        mounted = files_in(pod)
        named = [e["value"] for e in container.get("env", ()) if e["name"].endswith("_FILE")]
        assert set(named) <= mounted, owner


def files_in(pod: dict[str, Any]) -> set[str]:
    (container,) = pod["containers"]
    places = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    found = set()
    for volume in pod["volumes"]:
        sources = volume.get("projected", {}).get("sources", [volume] if "secret" in volume else [])
        for source in sources:
            found |= {f"{places[volume['name']]}/{item['path']}" for item in source["secret"].get("items", ())}
    return found


def test_no_pod_has_a_secret_of_another_service(name: str) -> None:
    for service, deployment in of_kind(manifests(*SETS[name]), "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        names = {path.rpartition("/")[2] for path in files_in(pod)}

        identities = {entry for entry in names if entry.endswith(".jwk") and entry != "audit_key.jwk"}
        passwords = {entry for entry in names if entry.startswith("postgres_")}
        row = find(service)
        own = "cli" if row is None else row.service
        assert identities == {f"{own}.jwk"}
        assert passwords == (set() if row is None else {f"postgres_{own}"})
        if row is not None:
            fields = settings_class(__import__(row.module, fromlist=["app"])).__struct_fields__
            assert names & set(FILES.values()) == {file for setting, file in FILES.items() if setting in fields}


def test_no_manifest_holds_a_secret(name: str) -> None:
    objects = manifests(*SETS[name])

    assert "Secret" not in {entry["kind"] for entry in objects}
    for owner, pod in pods(objects):
        for key in environment(objects, pod):
            bare = key.removesuffix("_FILE")
            is_secret = bare.endswith(("_PASSWORD", "_KEY", "_KEYS", "_SECRET", "_SECRETS"))
            assert not is_secret or key.endswith("_FILE"), f"{owner}: {key}"
    text = json.dumps(objects)
    for sign in ("-----BEGIN", '"d":', "demo-bank-secret", "password123"):
        assert sign not in text


def test_a_pod_that_ends_is_first_taken_out_then_finishes_and_is_not_killed_in_the_middle(name: str) -> None:
    objects = manifests(*SETS[name])
    for service, deployment in of_kind(objects, "Deployment").items():
        if service == "cli":
            continue
        pod = deployment["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        drain = math.ceil(float(environment(objects, pod)["PAYFLOW_DRAIN_S"]))

        # Twice the pause between two looks of the readiness probe, so that whoever looks knows.
        assert sleep >= 2 * container["readinessProbe"]["periodSeconds"]
        assert pod["terminationGracePeriodSeconds"] >= sleep + drain + 5


def test_probes_ask_the_right_addresses(name: str) -> None:
    for service, deployment in of_kind(manifests(*SETS[name]), "Deployment").items():
        if service == "cli":
            continue
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        asked = {kind: container[kind]["httpGet"] for kind in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert asked["startupProbe"]["path"] == "/live"
        assert asked["livenessProbe"]["path"] == "/live"
        assert asked["readinessProbe"]["path"] == "/ready"
        # The process gives each of its own checks a second.
        assert container["readinessProbe"]["timeoutSeconds"] > 1
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert all(ports[probe["port"]] == rows()[service].port_offset + 3000 for probe in asked.values())


def test_a_rollout_takes_no_pod_away_before_its_successor_is_ready(name: str) -> None:
    for service, deployment in of_kind(manifests(*SETS[name]), "Deployment").items():
        strategy = deployment["spec"].get("strategy", {})
        if service == "audit":
            # Two pods cannot hold its volume; events wait for it.
            assert strategy == {"type": "Recreate"}
        elif service != "cli":
            assert strategy["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
