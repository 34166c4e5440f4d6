"""Nodes without a machine: they renew their lease, and say of each pod that it runs and is ready.

A pod waits until all that it mounts and reads is there: Secrets and ConfigMaps with the keys that it names, claims that
are bound. A pod that runs once (a job's) has then succeeded at once, any other is ready; but with an image whose tag is
`broken` the one fails, and the other is never ready. A pod that is to end is gone at the next look.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final, Protocol

BROKEN: Final = "broken"
_PAUSE_S: Final = 0.3
_LEASES: Final = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_CAPACITY: Final = {"cpu": "64", "memory": "256Gi", "pods": "250", "ephemeral-storage": "100Gi"}
_MERGE: Final = "application/merge-patch+json"


class Sender(Protocol):
    """Who sends requests to the API server (control_plane.Api)."""

    def send(self, method: str, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        """The answer's document; raises an exception where it is refused."""
        ...


@contextmanager
def hollow_nodes(api: Sender, zones: Sequence[str]) -> Iterator[None]:
    """A node `hollow-<zone>` in each zone, for as long as the block."""
    names = {f"hollow-{zone}": zone for zone in zones}
    for name, zone in names.items():
        _register(api, name, zone)
    stop = threading.Event()
    keeper = threading.Thread(target=_keep, args=(api, frozenset(names), stop), daemon=True)
    keeper.start()
    try:
        yield
    finally:
        stop.set()
        keeper.join(10)


def _register(api: Sender, name: str, zone: str) -> None:
    labels = {"kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone, "kubernetes.io/os": "linux"}
    api.send(
        "POST", "/api/v1/nodes", {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    )
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}}
    api.send("POST", _LEASES, lease | {"spec": _lease_of(name)})
    _say_ready(api, name)


def _say_ready(api: Sender, name: str) -> None:
    now = _now()
    ready = {"type": "Ready", "status": "True", "reason": "Hollow", "lastHeartbeatTime": now, "lastTransitionTime": now}
    status = {"capacity": _CAPACITY, "allocatable": _CAPACITY, "conditions": [ready]}
    api.send("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, kind=_MERGE)
    # Put on every new node until a controller has seen it ready.
    api.send("PATCH", f"/api/v1/nodes/{name}", {"spec": {"taints": None}}, kind=_MERGE)


def _keep(api: Sender, names: frozenset[str], stop: threading.Event) -> None:
    rounds = 0
    while not stop.wait(_PAUSE_S):
        try:
            if rounds % 15 == 0:
                for name in names:
                    api.send("PATCH", f"{_LEASES}/{name}", {"spec": _lease_of(name)}, kind=_MERGE)
            for pod in api.send("GET", "/api/v1/pods")["items"]:
                if pod["spec"].get("nodeName") in names:
                    _do_what_is_due(api, pod)
        except Exception as error:
            # The API server is busy, or has changed the pod meanwhile: the next look will tell.
            print(f"hollow node: {error}")
        rounds += 1


def _do_what_is_due(api: Sender, pod: dict[str, Any]) -> None:
    path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
    if "deletionTimestamp" in pod["metadata"]:
        api.send("DELETE", path, {"gracePeriodSeconds": 0})
    elif pod["status"].get("phase") == "Pending":
        missing = _missing(api, pod)
        status = _waiting(pod, missing) if missing else _status_of(pod)
        api.send("PATCH", f"{path}/status", {"status": status}, kind=_MERGE)


def _missing(api: Sender, pod: dict[str, Any]) -> str:
    """What the pod names and is not there, in words; empty where everything is."""
    core = f"/api/v1/namespaces/{pod['metadata']['namespace']}"
    for kind, name, keys in _references(pod["spec"]):
        found = _find(api, f"{core}/{kind}", name)
        if found is None:
            return f"{kind}/{name} is not there"
        if kind == "persistentvolumeclaims" and found["status"]["phase"] != "Bound":
            return f"{kind}/{name} is not bound"
        lacking = sorted(set(keys) - {*found.get("data", ()), *found.get("binaryData", ())})
        if lacking:
            return f"{kind}/{name} has no {', '.join(lacking)}"
    return ""


def _references(spec: dict[str, Any]) -> Iterable[tuple[str, str, list[str]]]:
    """What a pod's volumes and variables are made from: kind (as in addresses), name, the keys that it has to have."""
    for volume in spec.get("volumes", ()):
        if "persistentVolumeClaim" in volume:
            yield "persistentvolumeclaims", volume["persistentVolumeClaim"]["claimName"], []
        for source in [volume, *volume.get("projected", {}).get("sources", ())]:
            for word, kind in (("secret", "secrets"), ("configMap", "configmaps")):
                if word in source:
                    named = source[word].get("name") or source[word].get("secretName")
                    yield kind, named, [item["key"] for item in source[word].get("items", ())]
    for container in spec["containers"]:
        for source in container.get("envFrom", ()):
            for word, kind in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
                if word in source:
                    yield kind, source[word]["name"], []


def _find(api: Sender, collection: str, name: str) -> dict[str, Any] | None:
    entries = api.send("GET", f"{collection}?fieldSelector=metadata.name%3D{name}")["items"]
    return entries[0] if entries else None


def _waiting(pod: dict[str, Any], why: str) -> dict[str, Any]:
    state = {"waiting": {"reason": "ContainerCreating", "message": why}}
    return {
        "containerStatuses": [
            {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0, "ready": False}
            | {"started": False, "state": state}
            for container in pod["spec"]["containers"]
        ]
    }


def _status_of(pod: dict[str, Any]) -> dict[str, Any]:
    now = _now()
    runs_once = pod["spec"]["restartPolicy"] == "Never"
    is_sound = not any(container["image"].endswith(f":{BROKEN}") for container in pod["spec"]["containers"])
    is_ready = is_sound and not runs_once
    words = ["Initialized", "PodScheduled", *(["Ready", "ContainersReady"] if is_ready else [])]
    gates = [gate["conditionType"] for gate in pod["spec"].get("readinessGates", [])]
    ended = {"exitCode": 0 if is_sound else 1, "reason": "Completed" if is_sound else "Error", "finishedAt": now}
    return {
        "phase": ("Succeeded" if is_sound else "Failed") if runs_once else "Running",
        "startTime": now,
        "podIP": "10.251.0.1",
        "podIPs": [{"ip": "10.251.0.1"}],
        "conditions": [{"type": word, "status": "True", "lastTransitionTime": now} for word in [*words, *gates]],
        "containerStatuses": [
            {
                "name": container["name"],
                "image": container["image"],
                "imageID": "",
                "restartCount": 0,
                "ready": is_ready,
                "started": is_ready,
                "state": {"terminated": ended} if runs_once else {"running": {"startedAt": now}},
            }
            for container in pod["spec"]["containers"]
        ],
    }


def _lease_of(name: str) -> dict[str, Any]:
    return {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": _now(micro=True)}


def _now(*, micro: bool = False) -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
