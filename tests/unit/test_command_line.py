"""What is typed wrong at the command line is told in one line with where to read on."""

from __future__ import annotations

from pathlib import Path

import pytest

from payflow.run.main import main

WRONG = [
    ("up --port abc", "--port: expected a whole number. See `payflow up --help`."),
    ("logs -n x", "--lines: expected a whole number. See `payflow logs --help`."),
    ("up --prot 5", "No such option: --prot (Possible options: --host, --port). See `payflow up --help`."),
    ("upp", "No such command 'upp'. Did you mean 'up'? See `payflow --help`."),
    ("load", "Missing argument 'file'. See `payflow load --help`."),
]


def run(typed: str, monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    monkeypatch.setattr("sys.argv", ["payflow", *typed.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


@pytest.mark.parametrize(("typed", "line"), WRONG)
def test_a_slip_is_one_line_and_exit_code_two(
    typed: str, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(typed, monkeypatch)

    assert code == 2
    assert capsys.readouterr().err == f"{line}\n"


def test_nothing_typed_shows_the_help_and_is_a_slip_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run("", monkeypatch)

    printed = capsys.readouterr()
    assert code == 2
    assert "check-config" in printed.out + printed.err


def test_the_version_ends_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code = run("--version", monkeypatch)

    assert code == 0
    assert capsys.readouterr().out.startswith("payflow ")


def test_a_verbs_own_exit_code_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    assert run(f"status --data-dir {tmp_path}", monkeypatch) == 3


@pytest.mark.parametrize("verb", ["status", "events replays"])
def test_where_nothing_runs_the_command_that_starts_it_there_is_told(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.delenv("PAYFLOW_POSTGRES_URL", raising=False)

    code = run(f"{verb} --data-dir {tmp_path}", monkeypatch)

    printed = capsys.readouterr()
    assert code == 3
    assert f"start one with `./payflow up --data-dir {tmp_path}`" in printed.out + printed.err
