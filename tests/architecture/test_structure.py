"""The house keeps its shape: who may import whom, where files belong, and what every service has."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import payflow.contracts
from payflow.contracts.operation import operations_of
from payflow.contracts.problems import PROBLEMS
from payflow.kernel.errors import known_error_codes
from payflow.run.registry import SERVICES

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
SERVICE_NAMES = sorted({row.service for row in SERVICES})

# What a service's folder may hold. A file that would be empty is left out; a long one may be a package of its name.
PLACES = {
    "README.md",
    "__init__.py",
    "api.py",
    "app.py",
    "consumer.py",
    "domain",
    "domain.py",
    "migrations",
    "ports.py",
    "queries.sql",
    "store",
    "store.py",
    "usecases",
    "usecases.py",
}
# Adapters and data that only one service has.
OWN_PLACES = {
    "account": {"directory.py", "rows.py", "verification.py", "verification.sql"},
    "audit": {"heads.py"},
    "confirm": {"bulk", "measures.py", "return_api.py", "return_queries.sql", "return_store.py"},
    "gateway": {
        "addresses.py",
        "docs",
        "gate.py",
        "freshness.py",
        "guard.py",
        "health.py",
        "keys.py",
        "lua",
        "passwords.py",
        "public.py",
        "routes",
        "tokens.py",
    },
    "notification": {"channel_api.py", "channels", "contacts.py", "templates"},
    "ofac": {"lists", "index.py"},
    "otp": {"entropy.py"},
    "partner_bank": {"rails"},
    "risk": {"rules"},
}
REQUIRED = {"README.md", "__init__.py", "api.py", "app.py", "ports.py", "queries.sql", "migrations"}


def python_files() -> list[Path]:
    return [path for path in SOURCE.rglob("*.py") if "__pycache__" not in path.parts]


def test_imports_follow_the_rules() -> None:
    linter = Path(sys.executable).with_name("lint-imports")

    result = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_every_file_of_a_service_has_a_declared_place(service: str) -> None:
    folder = SOURCE / "payflow" / "services" / service

    found = {path.name for path in folder.iterdir() if path.name != "__pycache__"}

    assert found <= PLACES | OWN_PLACES.get(service, set())
    assert found >= REQUIRED
    assert found & {"store", "store.py"}


@pytest.mark.parametrize("service", SERVICE_NAMES)
def test_every_service_has_settings_and_wiring(service: str) -> None:
    app = importlib.import_module(f"payflow.services.{service}.app")

    assert issubclass(app.SETTINGS, msgspec.Struct)
    assert app.SETTINGS.__struct_config__.frozen
    assert callable(app.build)


def test_every_error_code_has_a_problem_type_and_every_problem_a_code_of_its_own() -> None:
    for module in pkgutil.walk_packages([str(SOURCE / "payflow")], prefix="payflow."):
        if ".services." in module.name or ".contracts." in module.name or ".platform." in module.name:
            importlib.import_module(module.name)

    # Tests make codes of their own, in the same process.
    missing = {code for code in known_error_codes() if not code.startswith("TEST_")} - set(PROBLEMS)

    assert missing == set()
    assert all(400 <= problem.status <= 599 for problem in PROBLEMS.values())


def test_every_operation_takes_a_list_and_has_callers() -> None:
    for info in pkgutil.iter_modules(payflow.contracts.__path__, prefix="payflow.contracts."):
        module = importlib.import_module(info.name)
        for contract in vars(module).values():
            if isinstance(contract, type) and getattr(contract, "service", None) in SERVICE_NAMES:
                for spec in operations_of(contract).values():
                    assert spec.options.callers, spec.name


# What the fields of answers that a trace may show are called: decisions, states, codes and ids of our own making.
TOLD = {
    "challenge_id",
    "currency",
    "entry_id",
    "error_code",
    "hold_id",
    "is_new",
    "is_on_us",
    "is_possible_sanctions_match",
    "is_verified",
    "level",
    "needs_otp",
    "outcome",
    "points",
    "reason_code",
    "review_id",
    "risk_level",
    "rules_hit",
    "rules_version",
    "sanctions_points",
    "state",
    "status",
    "version",
}


def test_traces_show_decisions_and_nothing_of_a_person() -> None:
    for info in pkgutil.iter_modules(payflow.contracts.__path__, prefix="payflow.contracts."):
        for contract in vars(importlib.import_module(info.name)).values():
            if isinstance(contract, type) and getattr(contract, "service", None) in SERVICE_NAMES:
                for spec in operations_of(contract).values():
                    assert set(spec.options.tells) <= TOLD, spec.name
                    assert all(hasattr(spec.answer, name) for name in spec.options.tells), spec.name
                    assert all(hasattr(spec.answer, name) for name in spec.options.keeps or ()), spec.name


@pytest.mark.parametrize("path", python_files(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_files_stay_short_enough_to_read(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").count("\n")

    assert lines <= 450, f"{lines} lines: split it into a package of the same name"


def test_functions_fit_a_screen() -> None:
    long = []
    for path in python_files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[1:] if ast.get_docstring(node) else node.body
                length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
                if length > 50:
                    long.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name} ({length} lines)")

    assert long == []


def test_money_never_meets_a_binary_float() -> None:
    pattern = re.compile(r"float\(\s*(?:\w+\.)*\w*(?:amount|balance|minor)\w*")

    offenders = [str(path) for path in python_files() if pattern.search(path.read_text(encoding="utf-8"))]

    assert offenders == []


def test_the_lock_names_hashes_and_no_index() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")

    assert "--hash=sha256:" in lock
    assert not re.search(r"https?://|--index-url|--extra-index-url|--find-links", lock)
