"""Runs one load step in a process of its own and reads its result."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from payflow.run.errors import StartError
from payflow_dev.bench.bulk_loader import FILE_WITHIN_S
from payflow_dev.bench.job import Job, Load, read_file, write_file
from payflow_dev.bench.loader import ANSWER_WITHIN_S
from payflow_dev.bench.open_loader import WATCHED_S
from payflow_dev.bench.wrk import find_wrk, read_load, start_wrk

_POLL_S: Final = 0.2
_GRACE_S: Final = 20.0
_MODULES: Final = {"own": "loader", "open": "open_loader", "bulk": "bulk_loader"}


@dataclass(frozen=True, slots=True)
class Driven:
    """A step's result, and all CPU seconds of the loader's process, its start included."""

    load: Load
    process_cpu_s: float


def drive(*, job: Job, loader: str, tick: Callable[[str], None]) -> Driven:
    """Run a job. `tick` gets a note on the progress. Raises StartError when the loader fails or does not end."""
    before = _children_cpu_s()
    with tempfile.TemporaryDirectory(prefix="payflow-bench-") as name:
        directory = Path(name)
        if loader == "wrk":
            program = find_wrk()
            if program is None:
                raise StartError("--loader wrk: wrk is not installed (Debian, Ubuntu: apt-get install wrk).")
            _wait(start_wrk(program=program, job=job, directory=directory), job=job, tick=lambda: tick(""))
            cpu_s = _children_cpu_s() - before
            return Driven(read_load(job=job, directory=directory, cpu_s=cpu_s), cpu_s)
        write_file(directory / "job", job)
        progress = directory / "progress"
        _wait(_start_own(directory, progress, loader), job=job, tick=lambda: tick(_note(progress)))
        return Driven(read_file(directory / "result", Load), _children_cpu_s() - before)


def _start_own(directory: Path, progress: Path, loader: str) -> subprocess.Popen[str]:
    module = f"payflow_dev.bench.{_MODULES[loader]}"
    command = [sys.executable, "-m", module, str(directory / "job"), str(directory / "result")]
    with progress.open("wb") as output:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE, text=True)


def _note(progress: Path) -> str:
    with suppress(OSError):
        lines = progress.read_bytes().splitlines()
        if lines:
            return f"{int(lines[-1]):,} payments"
    return ""


def _wait(process: subprocess.Popen[str], *, job: Job, tick: Callable[[], None]) -> None:
    deadline = time.monotonic() + job.seconds + max(ANSWER_WITHIN_S + WATCHED_S, FILE_WITHIN_S) + _GRACE_S
    try:
        while True:
            try:
                _, errors = process.communicate(timeout=_POLL_S)
                break
            except subprocess.TimeoutExpired:
                tick()
                if time.monotonic() > deadline:
                    raise StartError("The loader did not end in time.") from None
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode != 0:
        raise StartError(f"The loader failed: {errors.strip()[-500:] or process.returncode}")


def _children_cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
