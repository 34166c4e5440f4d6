"""The machine that figures come from: without it they say nothing."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import msgspec
import psutil

from payflow.run.instance import repository_root


class MachineFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader needs to compare figures. `commit` ends with + where files differ from it."""

    cores: int
    cpu: str
    memory_mb: int
    kernel: str
    python: str
    commit: str
    filesystem: str
    load_average: float


def machine_facts(*, data_dir: Path | None) -> MachineFacts:
    """Read them now; `filesystem` is the one below the instance's data."""
    return MachineFacts(
        cores=os.cpu_count() or 1,
        cpu=_cpu_model(),
        memory_mb=psutil.virtual_memory().total // 2**20,
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        commit=_commit(),
        filesystem=_filesystem(data_dir) if data_dir else "unknown",
        load_average=round(os.getloadavg()[0], 2),
    )


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _commit() -> str:
    root = str(repository_root())
    try:
        named = subprocess.run(
            ["git", "-C", root, "rev-parse", "--short=12", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "-C", root, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{named}+" if changed else named


def _filesystem(path: Path) -> str:
    """The type of the file system that holds the path: tmpfs makes every fsync free."""
    holders = [each for each in psutil.disk_partitions(all=True) if path.is_relative_to(each.mountpoint)]
    return max(holders, key=lambda each: len(each.mountpoint)).fstype if holders else "unknown"
