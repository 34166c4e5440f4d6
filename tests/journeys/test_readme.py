"""The README's commands, pasted one after another into a shell, print what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from payflow.run.main import verb_modules
from tests.support.system import System

ROOT = Path(__file__).resolve().parents[2]


def shell_blocks(heading: str) -> list[str]:
    """The sh blocks of one section of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```sh\n(.*?)```", section, flags=re.DOTALL)


def promised_answers(heading: str) -> list[str]:
    """The json blocks of one section of the README."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```json\n(.*?)```", section, flags=re.DOTALL)


def paste(system: System, blocks: list[str]) -> list[dict[str, object]]:
    """Paste the blocks into one shell; returns the JSON objects that they printed."""
    script = "\n".join(f"{block}\necho" for block in blocks).replace("http://localhost:8080", system.url)
    done = subprocess.run(
        ["sh", "-c", script],
        cwd=ROOT,
        env={**os.environ, "PAYFLOW_DATA_DIR": str(system.instance.data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    decoder, printed, rest = json.JSONDecoder(), [], done.stdout
    while (start := rest.find("{")) >= 0:
        found, end = decoder.raw_decode(rest[start:])
        printed.append(found)
        rest = rest[start + end :]
    return printed


@pytest.mark.parametrize("day", ["today", "tomorrow"])
def test_the_curl_commands_work_when_pasted_one_after_another_and_again_the_next_day(system: System, day: str) -> None:
    printed = paste(system, shell_blocks("Pay with curl"))

    small, asked, paid, abroad, shown, accounts = printed
    assert (small["status"], small["amount"]) == ("SUCCESS", 1000.0), day
    assert asked["status"] == "OTP_REQUIRED"
    assert (paid["status"], paid["transaction_id"]) == ("SUCCESS", asked["transaction_id"])
    assert abroad["status"] in ("SUCCESS", "PENDING")
    assert shown["transaction_id"] == abroad["transaction_id"]
    assert "ACC001" in json.dumps(accounts)


def test_the_printed_answers_have_the_promised_fields(system: System) -> None:
    promised = [json.loads(block) for block in promised_answers("Pay with curl")]

    small, asked, *_ = paste(system, shell_blocks("Pay with curl"))

    assert [set(answer) for answer in promised] == [set(small), set(asked)]


def test_every_command_that_the_readme_names_exists() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    named = set(re.findall(r"\./payflow ([a-z][a-z-]*)", text))

    assert named <= set(verb_modules())
