"""A real API server with controllers and hollow nodes for the whole run: `make test-kubernetes`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from payflow_dev.kubernetes import programs
from payflow_dev.kubernetes.control_plane import Cluster, control_plane
from payflow_dev.kubernetes.definitions import definitions

NAMESPACE = "payflow"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A control plane with three zones, and a namespace in which only restricted pods may be."""
    try:
        with control_plane() as found:
            enforced = {"pod-security.kubernetes.io/enforce": "restricted"}
            document = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": enforced}}
            found.api.create("/api/v1/namespaces", document)
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
    done = cluster.kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "--all")
    assert done.returncode == 0, done.stderr


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
