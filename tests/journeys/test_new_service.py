"""tools/new_service.py writes a service that passes every check, starts, and is healthy: tried in a copy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ports import is_unused

ROOT = Path(__file__).resolve().parents[2]
NAME = "limits_demo"
COPIED = ("src", "tests", "tools", "docs", "deploy", "pyproject.toml", ".importlinter", "requirements.lock")
PYTHON_FILES = (
    f"src/payflow/services/{NAME}",
    f"src/payflow/contracts/{NAME}.py",
    f"tests/fakes_{NAME}.py",
    f"tests/ports/test_{NAME}_store.py",
    f"tests/unit/test_{NAME}_domain.py",
    "src/payflow/run/registry.py",
    "src/payflow/platform/settings.py",
    "src/payflow/contracts/problems.py",
)


class Copy:
    """A copy of the repository with a service more."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.data_dir = root / "data"

    def run(self, *command: str | Path, seconds: int = 180) -> subprocess.CompletedProcess[str]:
        """Run this Python with arguments, on the copy's code."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith(("PAYFLOW_", "PYTEST_"))}
        environ["PYTHONPATH"] = f"{self.root / 'src'}{os.pathsep}{self.root}"
        return subprocess.run(
            [sys.executable, *command],
            cwd=self.root,
            env=environ,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def payflow(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line on the copy's own data directory."""
        return self.run("-m", "payflow.run.main", *arguments, "--data-dir", str(self.data_dir))

    def new_service(self, *names: str) -> subprocess.CompletedProcess[str]:
        return self.run("tools/new_service.py", *names)


def copy_repository(target: Path) -> Copy:
    """What the checks need of this repository, in another folder."""
    ignored = shutil.ignore_patterns("__pycache__", ".payflow", "*.pyc")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy(source, target / name)
    return Copy(target)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    made = copy_repository(tmp_path_factory.mktemp("repository"))
    done = made.new_service(NAME)
    assert done.returncode == 0, done.stdout + done.stderr
    return made


@pytest.fixture
def ports(copy: Copy) -> Iterator[tuple[str, str]]:
    """`--port-base` and `--port` with free ports above; whatever was started there is stopped at the end."""
    base = next(base for base in range(16000, 32000, 40) if all(map(is_unused, range(base, base + 40))))
    yield str(base), str(base + 39)
    copy.payflow("down")
    copy.payflow("reset", "--yes")


def test_the_files_are_formatted_and_linted(copy: Copy) -> None:
    files = [*PYTHON_FILES, "tools/new_service.py"]

    linted = copy.run("-m", "ruff", "check", "--no-cache", *files)
    formatted = copy.run("-m", "ruff", "format", "--no-cache", "--check", *files)

    assert linted.returncode == 0, linted.stdout
    assert formatted.returncode == 0, formatted.stdout


@pytest.mark.timeout(300)
def test_the_files_are_typed(copy: Copy) -> None:
    files = [path for path in PYTHON_FILES if path.startswith("src/")]

    done = copy.run("-m", "mypy", *files, seconds=280)

    problems = [line for line in done.stdout.splitlines() if "error:" in line and line.startswith(PYTHON_FILES)]
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert problems == []


@pytest.mark.timeout(300)
def test_the_architecture_and_its_own_tests_hold(copy: Copy) -> None:
    chosen = f"{NAME} or imports_follow or up_to_date or error_code or takes_a_list or fit_a_screen or processes"
    files = ["tests/architecture", f"tests/ports/test_{NAME}_store.py", f"tests/unit/test_{NAME}_domain.py"]

    done = copy.run("-m", "pytest", "-q", "-k", chosen, *files, "tests/unit/test_registry.py", seconds=280)

    assert done.returncode == 0, done.stdout[-4000:]
    assert f"{NAME}" in (copy.root / ".importlinter").read_text()


def test_the_chart_for_kubernetes_knows_it(copy: Copy) -> None:
    values = (copy.root / "deploy/helm/payflow/values.yaml").read_text()
    callers = (copy.root / "deploy/helm/payflow/files/callers.yaml").read_text()

    done = copy.run("-m", "payflow_dev.deploy.helm", "--check")

    assert done.returncode == 0, done.stdout
    assert "\n  limits-demo:\n    port: 3013\n" in values
    assert "\nlimits-demo:\n" in callers


def test_it_has_its_place_in_the_deployment(copy: Copy) -> None:
    core = (copy.root / "deploy/compose/core.yaml").read_text()
    scraped = (copy.root / "deploy/prometheus/prometheus.yml").read_text()
    explained = (copy.root / ".env.example").read_text()

    assert "  limits-demo-service:\n" in core
    assert "secrets-limits-demo:/run/payflow:ro" in core
    assert core.count("http://limits-demo-service:3013") == core.count("http://kyc-service:3010")
    assert "- limits-demo-service:3013\n" in scraped
    assert "#PAYFLOW_LIMITS_DEMO_TEXT_MAX=200" in explained


def test_it_starts_with_the_others_and_is_healthy(copy: Copy, ports: tuple[str, str]) -> None:
    base, port = ports
    settings = copy.run("-m", "payflow.run.main", "check-config", NAME, "--all")

    started = copy.payflow("up", "-d", "--port-base", base, "--port", port)
    assert started.returncode == 0, started.stdout + started.stderr
    status = json.loads(copy.payflow("status", "--json").stdout)
    stopped = copy.payflow("down")

    (process,) = (process for process in status["processes"] if process["service"] == NAME)
    assert (process["name"], process["health"]) == ("limits-demo", "healthy")
    assert process["url"].endswith(f":{int(base) + 13}")
    assert {other["health"] for other in status["processes"]} == {"healthy"}
    assert f"PAYFLOW_{NAME.upper()}_TEXT_MAX=200" in settings.stdout
    assert stopped.returncode == 0, stopped.stderr


REFUSED = [
    ("Limits-Demo2", "such as limits_demo2"),
    ("2fast", "such as fast"),
    ("", "use lower-case letters"),
    ("../evil", "such as evil"),
    ("class", "is reserved"),
    ("match", "is reserved"),
    ("user", "is reserved"),
    ("pg_stats", "is reserved"),
    ("other_bank", "is reserved"),
    ("postgres", "is reserved"),
    ("account", "There is a service account already."),
    (NAME, f"There is a service {NAME} already."),
    ("problems", "src/payflow/contracts/problems.py exists already"),
    ("a" * 40, "is too long"),
]


@pytest.mark.parametrize(("name", "line"), REFUSED)
def test_a_name_that_cannot_be_used_is_refused_in_one_line(copy: Copy, name: str, line: str) -> None:
    before = (copy.root / "src/payflow/run/registry.py").read_text()

    done = copy.new_service(name)

    assert done.returncode == 1
    assert line in done.stderr
    assert done.stderr.count("\n") == 1
    assert (copy.root / "src/payflow/run/registry.py").read_text() == before


def test_a_second_service_gets_the_next_port(copy: Copy) -> None:
    done = copy.new_service("a_second")

    assert done.returncode == 0, done.stderr
    assert '_row("a-second", 14),' in (copy.root / "src/payflow/run/registry.py").read_text()


def test_nothing_is_written_when_a_list_has_lost_its_comment(tmp_path: Path) -> None:
    copy = copy_repository(tmp_path)
    linter = copy.root / ".importlinter"
    linter.write_text(linter.read_text().replace("# tools/new_service.py adds modules above this line.", ""))

    done = copy.new_service("limits")

    assert done.returncode == 1
    assert done.stderr.startswith(".importlinter needs one line `# tools/new_service.py adds modules")
    assert not (copy.root / "src/payflow/contracts/limits.py").exists()
    assert '"limits"' not in (copy.root / "src/payflow/run/registry.py").read_text()
