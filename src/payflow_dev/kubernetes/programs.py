"""Helm and the Kubernetes programs, built by Go from pinned modules into a cache outside the repository.

`python -m payflow_dev.kubernetes.programs [helm] [kubernetes]` builds what is missing: a minute for Helm, thirteen to
twenty on two cores for the API server, the controller manager, the scheduler and kubectl. A program that is there is
never built again.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

HELM_VERSION: Final = "3.22.0"
KUBERNETES_VERSION: Final = "1.37.2"
KUBERNETES_PROGRAMS: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl")

_BUILD_TIMEOUT_S: Final = 3600
_TOLD_MAX: Final = 1500
# The language's behaviour for which this release was written; it refuses to be compiled under another.
_GODEBUG: Final = "godebug default=go1.26"
_STAGED: Final = re.compile(r"^\s*(k8s\.io/[a-z0-9-]+) => \./staging/", re.MULTILINE)
_GO_VERSION: Final = re.compile(r"^go [0-9.]+$", re.MULTILINE)


class ProgramMissing(Exception):
    """A program cannot be had here; the message says why and what would help."""


def cache_dir() -> Path:
    """Where built programs are kept: `payflow` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "payflow"


def helm() -> Path:
    """Helm of the pinned version, built at the first call. Raises ProgramMissing."""
    program = cache_dir() / f"helm-{HELM_VERSION}" / "helm"
    if not program.exists():
        with _building(program) as folder:
            if not program.exists():
                package = f"helm.sh/helm/v3/cmd/helm@v{HELM_VERSION}"
                run_go(["install", "-trimpath", "-ldflags=-s -w", package], folder, GOBIN=str(folder))
                _keep(folder / "helm", program)
    return program


def kubernetes() -> Path:
    """The folder with the four Kubernetes programs, built at the first call. Raises ProgramMissing."""
    home = cache_dir() / f"kubernetes-{KUBERNETES_VERSION}"
    if not _missing_in(home):
        return home
    with _building(home / "kube-apiserver") as folder:
        if _missing_in(home):
            _write_module(folder)
        for name in _missing_in(home):
            print(f"building {name} {KUBERNETES_VERSION}", file=sys.stderr, flush=True)
            version = f"-X k8s.io/component-base/version.gitVersion=v{KUBERNETES_VERSION}"
            built = folder / "built"
            package = f"k8s.io/kubernetes/cmd/{name}"
            run_go(["build", "-trimpath", f"-ldflags=-s -w {version}", "-o", str(built), package], folder)
            _keep(built, home / name)
    return home


def are_kubernetes_programs_there() -> bool:
    """Whether `kubernetes` would return at once."""
    return not _missing_in(cache_dir() / f"kubernetes-{KUBERNETES_VERSION}")


def _missing_in(home: Path) -> list[str]:
    return [name for name in KUBERNETES_PROGRAMS if not (home / name).exists()]


@contextmanager
def _building(program: Path) -> Iterator[Path]:
    """A folder to build in, for one process at a time."""
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with tempfile.TemporaryDirectory(prefix="build-", dir=program.parent) as folder:
            yield Path(folder)


def _keep(built: Path, program: Path) -> None:
    """A program appears whole or not at all."""
    built.chmod(0o755)
    built.replace(program)


def _write_module(folder: Path) -> None:
    """A module that can be built: Kubernetes' own replaces its parts by folders that only its repository has."""
    kubernetes = f"k8s.io/kubernetes@v{KUBERNETES_VERSION}"
    said = run_go(["list", "-m", "-f", "{{.GoMod}}", kubernetes], folder).strip()
    original = Path(said).read_text(encoding="utf-8")
    staged = sorted(set(_STAGED.findall(original)))
    go_version = _GO_VERSION.search(original)
    if not staged or go_version is None:
        raise ProgramMissing(f"{kubernetes} has another go.mod than expected: {said}")
    part_version = f"v0.{KUBERNETES_VERSION.removeprefix('1.')}"
    lines = ["module payflow-kubernetes", go_version[0], _GODEBUG, f"require k8s.io/kubernetes v{KUBERNETES_VERSION}"]
    lines += [f"replace {part} => {part} {part_version}" for part in staged]
    (folder / "go.mod").write_text("\n".join(lines) + "\n", encoding="utf-8")
    imports = "".join(f'\t_ "k8s.io/kubernetes/cmd/{name}"\n' for name in KUBERNETES_PROGRAMS)
    (folder / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\nimport (\n{imports})\n", encoding="utf-8")
    run_go(["mod", "tidy"], folder)


def run_go(arguments: Sequence[str], folder: Path, **environ: str) -> str:
    """Run Go in a folder and return its output. Raises ProgramMissing."""
    go = shutil.which("go")
    if go is None:
        raise ProgramMissing("Go is not installed: Helm and Kubernetes are built by it (1.26 or newer).")
    command = ["nice", "-n", "15", go, *arguments]
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod", "GOTOOLCHAIN": "local", **environ}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=_BUILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        raise ProgramMissing(f"`go {' '.join(arguments)}` was not done within {_BUILD_TIMEOUT_S} s.") from None
    if done.returncode != 0:
        raise ProgramMissing(f"`go {' '.join(arguments)}` failed: {done.stderr.strip()[-_TOLD_MAX:]}")
    return done.stdout


def main(arguments: Sequence[str]) -> int:
    """Build what is named, or all; prints where each is."""
    makers = {"helm": helm, "kubernetes": kubernetes}
    try:
        for name in arguments or makers:
            print(makers[name]())
    except KeyError as error:
        print(f"There is no {error}: choose from {', '.join(makers)}.", file=sys.stderr)
        return 2
    except ProgramMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
