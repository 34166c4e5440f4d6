"""The chart on a real API server: validation, Pod Security, rollouts, scaling, budgets.

Hollow nodes say that pods run: no container is started, and no network, volume or ingress exists. The API server knows
the kinds of Prometheus Operator, External Secrets and CloudNativePG; the operators themselves are not there. The tests
build on one another, in the order of the file: install, scale, evict, upgrade, fail, roll back.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from payflow_dev.kubernetes import programs
from payflow_dev.kubernetes.control_plane import ApiError, Cluster, wait_until
from payflow_dev.kubernetes.hollow_nodes import BROKEN
from tests.stack.helm.chart import CHANNEL, SETS

CHART = Path(__file__).resolve().parents[1] / "payflow"
NAMESPACE = "payflow"
APPS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SECRETS = f"/api/v1/namespaces/{NAMESPACE}/secrets"
EXAMPLES = CHART.parent / "examples"
VALUES = (
    *("auditHeads.storageClassName=by-hand", "ingress.enabled=true", "ingress.host=pay.example"),
    *("monitoring.serviceMonitor.enabled=true", "monitoring.prometheusRule.enabled=true"),
    *CHANNEL,
)

pytestmark = pytest.mark.timeout(900)


def helm(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    if arguments[0] == "template":
        # It asks no server.
        arguments = (*arguments, "--kube-version", programs.KUBERNETES_VERSION)
    command = [str(programs.helm()), "--kubeconfig", str(cluster.kubeconfig), "--namespace", NAMESPACE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def release(
    cluster: Cluster, verb: str, *values: str, files: tuple[str, ...] = (), wait: str = "5m"
) -> subprocess.CompletedProcess[str]:
    options = [option for file in files for option in ("--values", str(CHART / file))]
    options += [option for value in (*VALUES, *values) for option in ("--set", value)]
    return helm(cluster, verb, "payflow", str(CHART), "--wait", "--timeout", wait, *options)


def deployments(cluster: Cluster) -> dict[str, dict[str, Any]]:
    found = cluster.api.get(APPS)["items"]
    return {entry["metadata"]["name"].removeprefix("payflow-"): entry for entry in found}


def ready_pods(cluster: Cluster, component: str) -> list[dict[str, Any]]:
    """The pods of a service to which traffic would go."""
    found = cluster.api.get(f"{PODS}?labelSelector=app.kubernetes.io/component%3D{component}")["items"]
    return [
        pod
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
        and any(c["type"] == "Ready" and c["status"] == "True" for c in pod["status"].get("conditions", ()))
    ]


def dry_run(cluster: Cluster, manifests: str) -> subprocess.CompletedProcess[str]:
    """Have the API server validate manifests and decide on them, fields that it does not know included."""
    options = ("--server-side", "--dry-run=server", "--validate=strict", "-n", NAMESPACE, "-f", "-")
    return cluster.kubectl("apply", *options, text=manifests)


def rendered(cluster: Cluster, name: str) -> str:
    files, values = SETS[name]
    options = [option for file in files for option in ("--values", str(CHART / file))]
    options += [option for value in (*VALUES, *values) for option in ("--set", value)]
    done = helm(cluster, "template", "payflow", str(CHART), *options)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SETS)
def test_the_api_server_takes_every_object_and_knows_every_field(cluster: Cluster, name: str) -> None:
    manifests = rendered(cluster, name)

    done = dry_run(cluster, manifests)

    assert done.returncode == 0, done.stderr
    assert done.stdout.count("serverside-applied") == len([entry for entry in yaml.safe_load_all(manifests) if entry])
    # Pod Security would warn of a pod template that it will not let in.
    assert "Warning" not in done.stderr


@pytest.mark.parametrize(
    ("word", "mistyped"),
    [
        ("imagePullPolicy:", "imagPullPolicy:"),
        ("namespaceSelector:\n    matchNames:", "namespaceSelector:\n    matchName:"),
        ("\n  groups:", "\n  group:"),
        ("deletionPolicy:", "deletePolicy:"),
    ],
    ids=["Deployment", "ServiceMonitor", "PrometheusRule", "ExternalSecret"],
)
def test_a_mistyped_field_is_refused_by_the_same_way(cluster: Cluster, word: str, mistyped: str) -> None:
    manifests = rendered(cluster, "everything")
    assert word in manifests

    done = dry_run(cluster, manifests.replace(word, mistyped))

    assert done.returncode != 0
    assert mistyped.strip().removesuffix(":").rpartition(" ")[2] in done.stderr


def test_the_example_of_a_database_is_what_its_operator_knows(cluster: Cluster) -> None:
    done = dry_run(cluster, (EXAMPLES / "postgres.yaml").read_text(encoding="utf-8"))

    assert done.returncode == 0, done.stderr


def test_a_pod_waits_for_the_secrets_that_it_mounts_and_their_keys(cluster: Cluster) -> None:
    (job,) = [e for e in yaml.safe_load_all(rendered(cluster, "default")) if e and e["kind"] == "Job"]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "waiting"}, "spec": job["spec"]["template"]["spec"]}
    cluster.api.create(PODS, pod)

    def why() -> str:
        (status,) = cluster.api.get(f"{PODS}/waiting")["status"].get("containerStatuses") or [{"state": {}}]
        return str(status["state"].get("waiting", {}).get("message", ""))

    wait_until("it waits for a Secret", lambda: "is not there" in why())
    cluster.api.create(SECRETS, a_secret("payflow-db-app", ["other"]))
    wait_until("it waits for a key", lambda: why() == "secrets/payflow-db-app has no password")
    cluster.api.send("DELETE", f"{SECRETS}/payflow-db-app")
    cluster.api.send("DELETE", f"{PODS}/waiting")
    wait_until("it is gone", lambda: cluster.api.get(PODS)["items"] == [])


def a_secret(name: str, keys: Iterable[str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": dict.fromkeys(keys, "x")}


def test_the_secrets_of_the_guide_are_made_by_its_lines(cluster: Cluster, tmp_path: Path) -> None:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(CHART.parents[2] / "src")}
    guide = (CHART.parents[2] / "docs/howto/run-on-kubernetes.md").read_text(encoding="utf-8")
    lines = re.findall(r"^payflow (?:secrets|keys) .*$|^kubectl .* create secret .*$", guide, re.MULTILINE)
    assert len(lines) == 6

    for line in lines:
        program, *arguments = line.split()
        if program == "kubectl":
            done = cluster.kubectl(*arguments, folder=tmp_path)
        else:
            command = [sys.executable, "-m", "payflow.run.main", *arguments]
            done = subprocess.run(
                command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=60, check=False
            )
        assert done.returncode == 0, f"{line}: {done.stderr}"
    # By CloudNativePG.
    cluster.api.create(SECRETS, a_secret("payflow-db-app", ["password"]))
    cluster.api.create(SECRETS, a_secret("payflow-db-ca", ["ca.crt"]))


def test_pod_security_is_enforced_in_the_namespace(cluster: Cluster) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "lax"}}

    with pytest.raises(ApiError) as refused:
        cluster.api.create(PODS, pod | {"spec": {"containers": [{"name": "lax", "image": "lax:1"}]}})

    assert refused.value.status == 403
    assert 'violates PodSecurity "restricted' in refused.value.message


def test_it_installs_and_every_pod_becomes_ready_after_the_migration(cluster: Cluster) -> None:
    done = release(cluster, "install")

    assert done.returncode == 0, done.stdout + done.stderr
    found = deployments(cluster)
    assert len(found) == 10
    for name, entry in found.items():
        wanted = 1 if name == "audit" else 2
        assert entry["status"]["readyReplicas"] == wanted, name
    jobs = cluster.api.get(f"/apis/batch/v1/namespaces/{NAMESPACE}/jobs")["items"]
    assert jobs == [], "a hook's job that succeeded is taken away"
    reasons = [e["reason"] for e in cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/events?limit=500")["items"]]
    assert "FailedCreate" not in reasons
    assert "Completed" in reasons


def test_replicas_stand_in_different_zones_and_scaling_goes_on_so(cluster: Cluster) -> None:
    done = cluster.kubectl("scale", "-n", NAMESPACE, "deployment/payflow-account", "--replicas=6")
    assert done.returncode == 0, done.stderr

    wait_until("six accounts", lambda: len(ready_pods(cluster, "account")) == 6)

    nodes = [pod["spec"]["nodeName"] for pod in ready_pods(cluster, "account")]
    assert {node: nodes.count(node) for node in nodes} == dict.fromkeys(set(nodes), 2)
    cluster.kubectl("scale", "-n", NAMESPACE, "deployment/payflow-account", "--replicas=2")
    wait_until("two accounts", lambda: len(ready_pods(cluster, "account")) == 2)


def test_a_second_eviction_is_refused_while_the_first_pod_is_not_replaced(cluster: Cluster) -> None:
    budgets = f"/apis/policy/v1/namespaces/{NAMESPACE}/poddisruptionbudgets/payflow-confirm"
    wait_until("a disruption is allowed", lambda: cluster.api.get(budgets)["status"]["disruptionsAllowed"] == 1)
    first, second = (pod["metadata"]["name"] for pod in ready_pods(cluster, "confirm"))

    evict(cluster, first)
    with pytest.raises(ApiError) as refused:
        evict(cluster, second)

    assert refused.value.status == 429
    wait_until("two confirms again", lambda: len(ready_pods(cluster, "confirm")) == 2)
    wait_until("a disruption is allowed again", lambda: cluster.api.get(budgets)["status"]["disruptionsAllowed"] == 1)


def evict(cluster: Cluster, name: str) -> None:
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    cluster.api.create(f"{PODS}/{name}/eviction", eviction)


class Watch:
    """The fewest ready pods that were seen of each service."""

    def __init__(self) -> None:
        self.fewest: dict[str, int] = {}
        self.looks = 0


@contextmanager
def watching(cluster: Cluster, services: tuple[str, ...]) -> Iterator[Watch]:
    seen, stop = Watch(), threading.Event()

    def look() -> None:
        while not stop.wait(0.1):
            for service in services:
                count = len(ready_pods(cluster, service))
                seen.fewest[service] = min(count, seen.fewest.get(service, count))
            seen.looks += 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        stop.set()
        watcher.join(30)


def test_an_upgrade_replaces_every_pod_and_never_leaves_fewer_ready(cluster: Cluster) -> None:
    before = images(cluster).keys()
    services = ("gateway", "confirm", "account")

    with watching(cluster, services) as seen:
        done = release(cluster, "upgrade", "image.tag=next")
        assert done.returncode == 0, done.stdout + done.stderr
        # Helm waits for the new pods only: the last old ones go when these have been ready for `minReadySeconds`.
        rolled_out = cluster.kubectl("rollout", "status", "-n", NAMESPACE, "deployment", "--timeout=60s")
        assert rolled_out.returncode == 0, rolled_out.stderr

    assert before.isdisjoint(images(cluster))
    assert seen.looks > 5
    assert seen.fewest == dict.fromkeys(services, 2)


def test_a_migration_that_fails_stops_the_upgrade_before_anything_is_changed(cluster: Cluster) -> None:
    before = images(cluster)

    done = release(cluster, "upgrade", f"image.tag={BROKEN}", "migration.backoffLimit=0")

    assert done.returncode != 0
    assert "pre-upgrade hooks failed" in done.stderr
    assert {entry["status"]["readyReplicas"] for entry in deployments(cluster).values()} == {1, 2}
    after = images(cluster)
    assert {name: image for name, image in after.items() if image == "payflow:next"} == before
    (job,) = after.keys() - before.keys()
    assert job.startswith("payflow-migration-"), "its pod stays, for its log"


def test_an_upgrade_whose_pods_never_become_ready_takes_none_of_the_old_ones_away(cluster: Cluster) -> None:
    services = ("gateway", "confirm", "account", "otp")

    with watching(cluster, services) as seen:
        done = release(cluster, "upgrade", f"image.tag={BROKEN}", "migration.enabled=false", wait="20s")

    assert done.returncode != 0
    assert seen.fewest == dict.fromkeys(services, 2)
    for service in services:
        assert {image_of(pod) for pod in ready_pods(cluster, service)} == {"payflow:next"}


def images(cluster: Cluster) -> dict[str, str]:
    """The image of each pod that is not about to end, by the pod's name."""
    found = cluster.api.get(PODS)["items"]
    return {pod["metadata"]["name"]: image_of(pod) for pod in found if "deletionTimestamp" not in pod["metadata"]}


def image_of(pod: dict[str, Any]) -> str:
    return str(pod["spec"]["containers"][0]["image"])


def test_a_rollback_leads_back(cluster: Cluster) -> None:
    done = helm(cluster, "rollback", "payflow", "2", "--wait", "--timeout", "5m")

    assert done.returncode == 0, done.stderr
    for name, entry in deployments(cluster).items():
        assert entry["status"]["readyReplicas"] == entry["spec"]["replicas"], name
        assert entry["spec"]["template"]["spec"]["containers"][0]["image"] == "payflow:next"


def test_the_large_values_scale_to_three_zones_by_autoscalers(cluster: Cluster) -> None:
    files, values = SETS["everything"]

    done = release(cluster, "upgrade", *values, files=files)

    assert done.returncode == 0, done.stdout + done.stderr

    wait_until("three of each", lambda: all(len(ready_pods(cluster, name)) == 3 for name in ("gateway", "risk", "otp")))

    for service in ("gateway", "risk", "otp"):
        assert len({pod["spec"]["nodeName"] for pod in ready_pods(cluster, service)}) == 3
    scalers = cluster.api.get(f"/apis/autoscaling/v2/namespaces/{NAMESPACE}/horizontalpodautoscalers")["items"]
    assert {entry["metadata"]["name"] for entry in scalers} == {
        f"payflow-{name}" for name in deployments(cluster) if name not in ("audit", "cli")
    }
    able = {c["status"] for e in scalers for c in e["status"].get("conditions", ()) if c["type"] == "AbleToScale"}
    assert able == {"True"}


def test_what_is_for_the_operators_is_there(cluster: Cluster) -> None:
    monitoring = f"/apis/monitoring.coreos.com/v1/namespaces/{NAMESPACE}"
    external = f"/apis/external-secrets.io/v1/namespaces/{NAMESPACE}/externalsecrets"

    def names(path: str) -> set[str]:
        return {entry["metadata"]["name"] for entry in cluster.api.get(path)["items"]}

    assert names(f"{monitoring}/servicemonitors") == {"payflow"}
    assert names(f"{monitoring}/prometheusrules") == {"payflow"}
    assert names(external) == {"payflow-roles", "payflow-service-keys", "payflow-token-keys", "payflow-keys"}


def test_what_is_taken_away_leaves_the_signed_heads(cluster: Cluster) -> None:
    done = helm(cluster, "uninstall", "payflow", "--wait", "--timeout", "5m")

    assert done.returncode == 0, done.stderr
    started = time.monotonic()
    wait_until("no pod is left", lambda: cluster.api.get(PODS)["items"] == [], seconds=60)
    assert time.monotonic() - started < 60
    claims = cluster.api.get(f"/api/v1/namespaces/{NAMESPACE}/persistentvolumeclaims")["items"]
    assert [claim["metadata"]["name"] for claim in claims] == ["payflow-audit-heads"]
