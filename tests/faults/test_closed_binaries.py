"""As root with the environment below a closed folder (a checkout in /root), the servers run from a safe copy."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from payflow.run.embedded.binaries import postgres_tree, valkey_server
from payflow.run.embedded.places import reachable_copy
from payflow.run.embedded.user import server_user

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a normal user's servers run as that user")


def test_postgres_runs_from_a_copy_that_only_root_can_change(tmp_path: Path) -> None:
    tree, user = postgres_tree(), server_user()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    names = (tree.name, f"{tree.name}.libs")
    for name in names:
        if (tree.parent / name).exists():
            shutil.copytree(tree.parent / name, closed / name)
    probe = f"{tree.name}/pginstall/bin/postgres"
    assert user is not None

    place = reachable_copy(closed, names=names, probe=probe, user=user, version=f"test-{os.getpid()}")

    try:
        for program in ("postgres", "initdb"):
            done = subprocess.run(
                [place / tree.name / "pginstall/bin" / program, "--version"],
                user=user.uid,
                group=user.gid,
                extra_groups=[],
                capture_output=True,
                text=True,
                cwd="/",
            )
            assert done.returncode == 0, done.stderr
        assert place != closed
        assert closed.stat().st_mode & 0o777 == 0o700
        writable = [path for path in [place.parent, place, *place.rglob("*")] if path.stat().st_mode & 0o022]
        assert writable == []
        assert {path.stat().st_uid for path in [place.parent, place, *place.rglob("*")]} == {0}
    finally:
        shutil.rmtree(place)


def test_valkey_runs_from_a_copy_too(tmp_path: Path) -> None:
    user = server_user()
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    program = Path(shutil.copy(valkey_server().resolve(), closed))
    assert user is not None

    place = reachable_copy(closed, names=(program.name,), probe=program.name, user=user, version=f"test-{os.getpid()}")

    try:
        assert user.can_reach(place / program.name)
        assert not user.can_reach(program)
    finally:
        shutil.rmtree(place)


def test_what_the_user_can_reach_is_not_copied() -> None:
    user = server_user()
    assert user is not None

    place = reachable_copy(Path("/bin"), names=("sh",), probe="sh", user=user, version="unused")

    assert place == Path("/bin")
