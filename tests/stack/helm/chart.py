"""The chart as Helm renders it, for tests: by values files and single values."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from payflow_dev.kubernetes import programs

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "deploy/helm/payflow"
KUBERNETES = "1.37"
RELEASE = "payflow"
# The channel for one-time codes, which every installation brings: without one the chart is refused in production.
CHANNEL = ("settings.PAYFLOW_SMTP_HOST=mail.example.org", "settings.PAYFLOW_EMAIL_FROM=no-reply@pay.example.org")
# Everything that can be switched on, so that each template is looked at.
EVERYTHING = (
    "commandLine.enabled=true",
    "externalSecrets.enabled=true",
    "externalSecrets.store.name=vault",
    "ingress.enabled=true",
    "ingress.host=pay.example",
    "ingress.tlsSecret=pay-tls",
    "ingress.trustedProxies={10.1.0.0/16}",
    "ingress.banks.enabled=true",
    "ingress.banks.host=banks.example",
    "monitoring.serviceMonitor.enabled=true",
    "monitoring.prometheusRule.enabled=true",
    "networkPolicy.kafka.enabled=true",
    "networkPolicy.telemetry.enabled=true",
)
# The three sets of values that are there, and one with everything in it.
SETS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "default": ((), ()),
    "small": (("values-small.yaml",), ()),
    "large": (("values-large.yaml",), ()),
    "everything": (("values-large.yaml",), EVERYTHING),
}


@cache
def find_helm() -> Path | str:
    """Helm, built where it is not there yet; or why it cannot be had."""
    try:
        return programs.helm()
    except programs.ProgramMissing as error:
        return str(error)


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Helm to its end. A test that needs it fails where it cannot be had."""
    program = find_helm()
    if isinstance(program, str):
        pytest.fail(f"Helm cannot be had here, and so nothing of the chart can be shown: {program}", pytrace=False)
    return subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=60, check=False)


@cache
def template(files: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    """What `helm template` says of an installation with a channel for codes."""
    options = [option for file in files for option in ("--values", str(CHART / file))]
    options += [option for value in (*CHANNEL, *values) for option in ("--set", value)]
    version = ("--kube-version", f"{KUBERNETES}.0", "--namespace", "pay")
    return run_helm("template", RELEASE, str(CHART), *version, *options)


def manifests(files: tuple[str, ...] = (), values: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    """The rendered objects."""
    done = template(files, values)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind by their component, or by their name where they are of none."""
    found: dict[str, dict[str, Any]] = {}
    for entry in objects:
        if entry["kind"] == kind:
            labels = entry["metadata"].get("labels", {})
            name = labels.get("app.kubernetes.io/component", entry["metadata"]["name"])
            assert name not in found, f"two of kind {kind} are {name}"
            found[name] = entry
    return found


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The pod of each Deployment and Job: its object's name, its spec."""
    for entry in objects:
        if entry["kind"] in ("Deployment", "Job"):
            yield entry["metadata"]["name"], entry["spec"]["template"]["spec"]


def environment(objects: list[dict[str, Any]], pod: dict[str, Any]) -> dict[str, str]:
    """The variables that a pod's container gets, those of the ConfigMap and its own."""
    (container,) = pod["containers"]
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        name = source["configMapRef"]["name"]
        (config,) = [e for e in objects if e["kind"] == "ConfigMap" and e["metadata"]["name"] == name]
        found |= config["data"]
    return found | {entry["name"]: entry["value"] for entry in container.get("env", ()) if "value" in entry}
