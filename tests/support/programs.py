"""Programs that tests of the whole stack need and do not install."""

from __future__ import annotations

import shutil

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
