"""The kinds that operators add to Kubernetes, as their projects publish them: custom resource definitions.

They are files of the operators' Go modules, fetched in pinned versions and held against Go's checksum database. Only
what an object may look like is in them; an operator's own checks are not.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from payflow_dev.kubernetes.programs import ProgramMissing, run_go

# The operator's module, and the definitions in it that manifests of ours need.
_MODULES: Final = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "github.com/external-secrets/external-secrets@v1.3.2": (
        "config/crds/bases/external-secrets.io_externalsecrets.yaml",
    ),
    "github.com/cloudnative-pg/cloudnative-pg@v1.27.0": ("config/crd/bases/postgresql.cnpg.io_clusters.yaml",),
}


def definitions() -> list[Path]:
    """The files of the definitions, fetched at the first call. Raises ProgramMissing."""
    found = [_module(module) / file for module, files in _MODULES.items() for file in files]
    for file in found:
        if not file.is_file():
            raise ProgramMissing(f"A custom resource definition is not where it was: {file}")
    return found


def _module(module: str) -> Path:
    """Where Go keeps a module's files."""
    with tempfile.TemporaryDirectory(prefix="payflow-crd-") as folder:
        return Path(json.loads(run_go(["mod", "download", "-json", module], Path(folder)))["Dir"])
