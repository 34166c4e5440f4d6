"""A real API server with controllers and hollow nodes for the whole run: `make test-kubernetes`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from payflow_dev.kubernetes import programs
from payflow_dev.kubernetes.control_plane import Cluster, control_plane, wait_until
from payflow_dev.kubernetes.definitions import definitions

NAMESPACE = "payflow"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane with three zones, and a namespace in which only restricted pods may be."""
    try:
        with control_plane() as found:
            enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
            document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}}
            found.api.create("/api/v1/namespaces", document)
            found.api.create("/apis/storage.k8s.io/v1/storageclasses", a_class())
            found.api.create("/api/v1/persistentvolumes", a_volume())
            add_definitions(found)
            yield found
    except programs.ProgramMissing as error:
        pytest.fail(f"The control plane cannot be had here: {error}", pytrace=False)


def add_definitions(cluster: Cluster) -> None:
    """Have the API server know the operators' kinds; no operator is there."""
    for file in definitions():
        # Some are too large for the annotation that an apply on the client's side leaves.
        added = cluster.kubectl("apply", "--server-side", "-f", str(file))
        assert added.returncode == 0, added.stderr
    wait_until(
        "the operators' kinds are served", lambda: all(map(is_established, cluster.api.get(DEFINITIONS)["items"]))
    )


def is_established(definition: dict[str, Any]) -> bool:
    conditions = definition.get("status", {}).get("conditions") or ()
    return any(entry["type"] == "Established" and entry["status"] == "True" for entry in conditions)


def a_class() -> dict[str, object]:
    """Its volumes are made by hand, and may grow: the large values have a larger one than the others."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": "by-hand"},
        "provisioner": "kubernetes.io/no-provisioner",
        "allowVolumeExpansion": True,
    }


def a_volume() -> dict[str, object]:
    """For audit's claim: nothing provisions volumes here."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": "heads"},
        "spec": {
            "capacity": {"storage": "50Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "by-hand",
            "hostPath": {"path": "/nowhere"},
        },
    }
