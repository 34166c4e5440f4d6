"""Images that stand in for the official ones where no image can be pulled: `python stand_ins.py FOLDER`.

Needs a Docker daemon (DOCKER_HOST), `mmdebstrap` as root, Maven, Go, and Debian's Prometheus, Alertmanager and
exporters. FOLDER keeps what is fetched. Each image gets the tag that compose.yaml asks for and holds the same program
from another source: Debian's NGINX, Python, Prometheus, Alertmanager and exporters, the PostgreSQL and Valkey of this
repository's own environment, Kafka's jars on Debian's Java, Jaeger and the collector as Go builds them; and OpenSearch
for Elasticsearch. Nothing stands for Grafana and Kibana. They prove compose.yaml and our own image; the official
images' entry points they only imitate.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import programs
import yaml

from payflow.run.embedded.binaries import postgres_tree, valkey_server
from tests.support import search_node

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parents[2]
BASE: Final = "payflow-stand-in:base"
# Where our own image is to begin with, in place of python:...
PYTHON: Final = "payflow-stand-in:python"
AUTHORITIES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
_PACKAGES: Final = (
    "bash,ca-certificates,default-jre-headless,iproute2,nginx-light,python3,python3-pip,python3-venv,util-linux,wget"
)


def main(folder: Path) -> None:
    """Build all of them; what is there already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    _build_base(folder)
    _build("python", PYTHON, folder)
    for kind, service in (
        ("nginx", "nginx"),
        ("postgres", "postgres-db"),
        ("valkey", "redis-cache"),
        ("kafka", "kafka"),
        ("prometheus", "prometheus"),
        ("alertmanager", "alertmanager"),
        ("blackbox", "blackbox-exporter"),
        ("postgres-exporter", "postgres-exporter"),
        ("redis-exporter", "redis-exporter"),
        ("node-exporter", "node-exporter"),
        ("jaeger", "jaeger"),
        ("collector", "otel-collector"),
        ("opensearch", "elasticsearch"),
    ):
        _build(kind, image_of(service), folder)


def image_of(service: str) -> str:
    """The image that a service asks for."""
    for part in ("core", "observability"):
        services = yaml.safe_load((ROOT / f"deploy/compose/{part}.yaml").read_text(encoding="utf-8"))["services"]
        if service in services:
            return str(services[service]["image"])
    raise KeyError(service)


def _build_base(folder: Path) -> None:
    if subprocess.run(["docker", "image", "inspect", BASE], capture_output=True, check=False).returncode == 0:
        return
    archive = folder / "base.tar"
    if not archive.exists():
        partial = folder / "base.partial.tar"
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={_PACKAGES}", "bookworm", str(partial))
        partial.rename(archive)
    _run("docker", "import", str(archive), BASE)


def _build(kind: str, tag: str, folder: Path) -> None:
    context = folder / kind
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(HERE / "images" / kind, context)
    if kind == "python":
        shutil.copy(AUTHORITIES, context)
    elif kind == "postgres":
        tree = postgres_tree()
        for part in (tree, tree.parent / f"{tree.name}.libs"):
            shutil.copytree(part, context / "tree" / part.name, symlinks=True)
    elif kind == "valkey":
        (context / "bin").mkdir()
        for name in ("valkey-server", "valkey-cli"):
            shutil.copy(valkey_server().resolve().with_name(name), context / "bin" / name)
            (context / "bin" / name).chmod(0o755)
    elif kind == "kafka":
        copy = ("-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={context / 'libs'}")
        _run("mvn", "-f", str(context / "pom.xml"), *copy)
    elif kind == "opensearch":
        for part in ("libs", "classes"):
            shutil.copytree(search_node.fetch() / part, context / part)
    elif kind in _PROGRAMS:
        (context / "bin").mkdir()
        shutil.copy(_PROGRAMS[kind](), context / "bin")
        if kind in _SHARES:
            # The official programs have their pages and templates within them.
            share = _DEBIANS_SHARE / _SHARES[kind]
            shutil.copytree(share, context / "share" / _SHARES[kind])
    _run("docker", "build", "--quiet", "--network", "none", "--tag", tag, str(context))


def _debians(name: str) -> Callable[[], Path]:
    """A program of the package of its name."""

    def find() -> Path:
        program = shutil.which(name)
        if program is None:
            raise SystemExit(f"{name} is not installed (Debian, Ubuntu: apt-get install {name}).")
        return Path(program)

    return find


_PROGRAMS: Final[dict[str, Callable[[], Path]]] = {
    "prometheus": _debians("prometheus"),
    "alertmanager": _debians("prometheus-alertmanager"),
    "blackbox": _debians("prometheus-blackbox-exporter"),
    "postgres-exporter": _debians("prometheus-postgres-exporter"),
    "redis-exporter": _debians("prometheus-redis-exporter"),
    "node-exporter": _debians("prometheus-node-exporter"),
    "jaeger": programs.jaeger,
    "collector": programs.collector,
}
_DEBIANS_SHARE: Final = Path("/usr/share/prometheus")
_SHARES: Final = {"prometheus": "web", "alertmanager": "alertmanager"}


def _run(*command: str) -> None:
    print(f"$ {' '.join(command)}", flush=True)
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
