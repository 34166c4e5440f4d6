"""Programs that tests of the whole stack need and do not install."""

from __future__ import annotations

import shutil
import subprocess

import pytest


def require_program(name: str, *, package: str) -> str:
    """The path of a program. Fails the test, and does not skip it, where it is missing."""
    path = shutil.which(name)
    if path is None:
        pytest.fail(
            f"{name} is not installed: these tests run against the real one (Debian, Ubuntu: apt-get install "
            f"{package}).",
            pytrace=False,
        )
    return path


def end(process: subprocess.Popen[bytes]) -> None:
    """End a program, by force if it takes too long."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
