"""An instance of the tiny services, and a folder for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from payflow.run import control
from tests.faults.tiny import Tiny


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the servers' user can pass through, as /home and /srv are."""
    path = Path(tempfile.mkdtemp(prefix="pf-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def tiny(folder: Path) -> Iterator[Tiny]:
    made = Tiny(folder / "data")
    yield made
    control.stop(made.instance)
