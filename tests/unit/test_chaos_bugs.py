"""The bugs that `payflow chaos --self-test` plants: each still finds the text that it changes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import payflow
from payflow_dev.chaos.bugs import BUGS, plant
from payflow_dev.chaos.mix import ABROAD

SOURCE = Path(payflow.__file__).resolve().parents[1]


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_can_be_planted_and_leaves_python_that_can_be_read(name: str, tmp_path: Path) -> None:
    for change in BUGS[name].changes:
        copy = tmp_path / "payflow" / change.path
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text((SOURCE / "payflow" / change.path).read_text(encoding="utf-8"), encoding="utf-8")

    plant(BUGS[name], source=SOURCE, target=tmp_path)

    for path in tmp_path.rglob("*.py"):
        ast.parse(path.read_text(encoding="utf-8"))


def test_at_least_ten_bugs_are_planted_and_one_run_has_none() -> None:
    assert len(BUGS) >= 11
    assert BUGS["control"].changes == ()


def test_the_other_banks_accounts_of_a_run_exist() -> None:
    books = (SOURCE / "payflow_dev/other_bank/migrations/0001_initial.sql").read_text(encoding="utf-8")

    assert [account for account in ABROAD if f"'{account}'" not in books] == []
