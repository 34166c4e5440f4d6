"""Programs that no package brings, built by Go from pinned modules into a cache outside the repository.

`python programs.py [compose] [jaeger] [collector]` builds what is missing: from nothing 8, 16 and 10 minutes on two
cores. A program that is there is never built again.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
COMPOSE_VERSION, JAEGER_VERSION, COLLECTOR_VERSION = "2.40.3", "1.76.0", "0.140.1"
_COMPOSE: Final = "github.com/docker/compose/v2"
_JAEGER: Final = "github.com/jaegertracing/jaeger"
_CONTRIB: Final = "github.com/open-telemetry/opentelemetry-collector-contrib"
# What the collector has beyond Jaeger, whose go.mod and go.sum pin all the rest.
_COLLECTOR_PARTS: Final = (
    f"{_CONTRIB}/receiver/filelogreceiver@v0.140.0",
    f"{_CONTRIB}/processor/transformprocessor@v{COLLECTOR_VERSION}",
    f"{_CONTRIB}/extension/storage/filestorage@v{COLLECTOR_VERSION}",
)
_BUILD_TIMEOUT_S: Final = 3600


def compose() -> Path:
    """Docker Compose. Raises SystemExit where it cannot be built; so do the others."""
    version = f"-X {_COMPOSE}/internal.Version=v{COMPOSE_VERSION}"
    return _program("compose", COMPOSE_VERSION, "docker-compose", of=_COMPOSE, package=f"{_COMPOSE}/cmd", flags=version)


def jaeger() -> Path:
    """Jaeger 2, whose modules are numbered on as 1.x."""
    return _program("jaeger", JAEGER_VERSION, "jaeger", of=_JAEGER, package=f"{_JAEGER}/cmd/jaeger")


def collector() -> Path:
    """The OpenTelemetry Collector with the parts of deploy/otel: collector/main.go."""
    return _program("collector", COLLECTOR_VERSION, "otelcol-contrib", of=_JAEGER, package=".", parts=_COLLECTOR_PARTS)


def _program(
    name: str, version: str, file: str, *, of: str, package: str, parts: Sequence[str] = (), flags: str = ""
) -> Path:
    """Build a package in a module that has the requirements of another one, which cannot be installed by its name."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    program = root / "payflow" / f"{name}-{version}" / file
    program.parent.mkdir(parents=True, exist_ok=True)
    with (program.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            print(f"building {name} {version}", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory(prefix="build-", dir=program.parent) as folder:
                _write_module(Path(folder), of, JAEGER_VERSION if of == _JAEGER else version)
                if package == ".":
                    for source in (HERE / name).glob("*.go"):
                        shutil.copy(source, folder)
                if parts:
                    _go(["get", *parts], Path(folder))
                _go(["build", "-trimpath", f"-ldflags=-s -w {flags}", "-o", file, package], Path(folder))
                (Path(folder) / file).replace(program)
    return program


def _write_module(folder: Path, of: str, version: str) -> None:
    """go.mod and go.sum of a module, as those of one that requires it."""
    told = json.loads(_go(["mod", "download", "-json", f"{of}@v{version}"], folder))
    text = (Path(told["Dir"]) / "go.mod").read_text(encoding="utf-8")
    text = re.sub(r"^module .*$", "module payflow-stand-in", text, count=1, flags=re.MULTILINE)
    (folder / "go.mod").write_text(f"{text}\nrequire {of} v{version}\n", encoding="utf-8")
    # Go holds every module to the sums that the original was built with.
    shutil.copyfile(Path(told["Dir"]) / "go.sum", folder / "go.sum")


def _go(arguments: Sequence[str], folder: Path) -> str:
    """Run Go and return its output. Raises SystemExit with what it said."""
    go = shutil.which("go")
    if go is None:
        raise SystemExit("Go 1.26 or newer is not installed: Compose, Jaeger and the collector are built by it.")
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod -buildvcs=false"}
    done = subprocess.run(
        ["nice", "-n", "15", go, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_TIMEOUT_S,
    )
    if done.returncode != 0:
        raise SystemExit(f"`go {' '.join(arguments)}` failed: {done.stderr.strip()[-1500:]}")
    return done.stdout


def main(names: Sequence[str]) -> None:
    """Build what is named, or all; prints where each is."""
    makers: dict[str, Callable[[], Path]] = {"compose": compose, "jaeger": jaeger, "collector": collector}
    for name in names or makers:
        print(makers[name](), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
