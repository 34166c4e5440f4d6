"""`payflow vendors` as a user runs it: it listens, writes the settings for Payflow, prints what it takes, and stops."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.servers import ROOT
from tests.support.system import free_port_base


def environ(**settings: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PAYFLOW_")}
    return {**kept, "PYTHONPATH": str(ROOT / "src"), **settings}


@contextmanager
def vendors(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "payflow.run.main", "vendors", "--folder", str(folder), *options]
    process = subprocess.Popen(command, cwd=ROOT, env=environ(), stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait(timeout=10)


@pytest.mark.parametrize("email", ["sendgrid", "smtp", "smtps"])
def test_stand_ins_write_settings_that_payflow_takes(tmp_path: Path, email: str) -> None:
    base = free_port_base()
    with vendors(tmp_path / "v", "--port-base", str(base), "--email", email) as process:
        assert process.stdout is not None
        lines = []
        while not lines or "Start Payflow" not in lines[-1]:
            lines.append(process.stdout.readline())
            assert lines[-1], "it ended"
        exports = (tmp_path / "v" / "vendors.env").read_text().splitlines()
        settings = dict(line.removeprefix("export ").replace("'", "").split("=", 1) for line in exports)
        checked = subprocess.run(
            [sys.executable, "-m", "payflow.run.main", "check-config", "notification"],
            cwd=ROOT,
            env=environ(**settings),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        with urllib.request.urlopen(f"http://127.0.0.1:{base + 1}/control", timeout=5) as answer:
            control = answer.read()
        process.send_signal(signal.SIGTERM)
        code = process.wait(timeout=10)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "The settings are right." in checked.stdout
    assert b'"mood":"fine"' in control
    assert code == 0
    files = list((tmp_path / "v").iterdir())
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
