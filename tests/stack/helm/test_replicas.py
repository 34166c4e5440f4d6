"""Replicas, autoscalers, budgets and places agree with one another."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stack.helm.chart import ROOT, SETS, manifests, of_kind


@pytest.mark.parametrize("name", SETS)
def test_a_budget_never_forbids_every_eviction(name: str) -> None:
    objects = manifests(*SETS[name])
    scalers, budgets = of_kind(objects, "HorizontalPodAutoscaler"), of_kind(objects, "PodDisruptionBudget")

    for service, deployment in of_kind(objects, "Deployment").items():
        least = least_replicas(deployment, scalers.get(service))
        if service in budgets:
            assert least > 1, service
            assert budgets[service]["spec"]["maxUnavailable"] == 1
            assert budgets[service]["spec"]["selector"] == deployment["spec"]["selector"]
        elif name != "small":
            assert least == 1, service


def least_replicas(deployment: dict[str, Any], scaler: dict[str, Any] | None) -> int:
    """A Deployment has replicas of its own, or an autoscaler that decides; never both, or they would fight."""
    assert ("replicas" in deployment["spec"]) == (scaler is None)
    return int(deployment["spec"]["replicas"] if scaler is None else scaler["spec"]["minReplicas"])


@pytest.mark.parametrize("name", ["large", "everything"])
def test_autoscalers_scale_the_deployment_of_their_name_within_sensible_bounds(name: str) -> None:
    objects = manifests(*SETS[name])
    scalers, deployments = of_kind(objects, "HorizontalPodAutoscaler"), of_kind(objects, "Deployment")

    assert set(scalers) == set(deployments) - {"audit", "cli"}
    for service, scaler in scalers.items():
        spec = scaler["spec"]
        assert spec["scaleTargetRef"]["name"] == deployments[service]["metadata"]["name"]
        assert 1 < spec["minReplicas"] < spec["maxReplicas"]
        # Without a request there is nothing of which a percentage could be used.
        (container,) = deployments[service]["spec"]["template"]["spec"]["containers"]
        assert container["resources"]["requests"]["cpu"]


def test_the_metric_that_an_autoscaler_asks_for_is_one_that_the_processes_have() -> None:
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "src/payflow").rglob("*.py"))
    scalers = of_kind(manifests(*SETS["large"]), "HorizontalPodAutoscaler")

    asked = {
        service: metric["pods"]["metric"]["name"]
        for service, scaler in scalers.items()
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "Pods"
    }
    assert set(asked) == {"risk", "notification"}
    for name in asked.values():
        assert f'"{name}"' in source


def test_no_autoscaler_is_made_where_it_is_not_switched_on() -> None:
    assert of_kind(manifests(), "HorizontalPodAutoscaler") == {}


def test_replicas_of_a_service_stand_apart_and_only_in_the_large_set_by_force() -> None:
    for name, force in (("default", "ScheduleAnyway"), ("large", "DoNotSchedule")):
        for service, deployment in of_kind(manifests(*SETS[name]), "Deployment").items():
            rules = deployment["spec"]["template"]["spec"]["topologySpreadConstraints"]
            by_key = {rule["topologyKey"]: rule for rule in rules}
            assert by_key["topology.kubernetes.io/zone"]["whenUnsatisfiable"] == force
            assert set(by_key) == {"topology.kubernetes.io/zone", "kubernetes.io/hostname"}
            for rule in rules:
                assert rule["labelSelector"] == deployment["spec"]["selector"], service


def test_audit_is_replicated_where_its_volume_can_be_shared() -> None:
    objects = manifests(values=("auditHeads.accessMode=ReadWriteMany",))

    audit = of_kind(objects, "Deployment")["audit"]
    assert audit["spec"]["replicas"] == 2
    assert audit["spec"]["strategy"]["type"] == "RollingUpdate"
    assert "audit" in of_kind(objects, "PodDisruptionBudget")


def test_a_service_can_differ_from_the_others() -> None:
    objects = manifests(values=("services.gateway.replicas=5", "services.kyc.disruptionBudget.enabled=false"))

    deployments, budgets = of_kind(objects, "Deployment"), of_kind(objects, "PodDisruptionBudget")
    assert deployments["gateway"]["spec"]["replicas"] == 5
    assert deployments["account"]["spec"]["replicas"] == 2
    assert "kyc" not in budgets
    assert "account" in budgets
