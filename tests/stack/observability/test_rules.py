"""Prometheus's own tool checks what ships: the configuration, the rules, and what must raise each alert.

That each is raised by the running system as well is shown beside this (test_alerts_*.py), and held to here.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.programs import require_program
from tests.support.prometheus import FOLDER
from tests.support.servers import ROOT

TESTS = ("alerts_test.yml", "alerts_days_test.yml")


def promtool(*arguments: str) -> str:
    """What the tool says; it must be content."""
    program = require_program("promtool", package="prometheus")
    done = subprocess.run([program, *arguments], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> dict[str, dict[str, object]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return {rule["alert"]: rule for group in document["groups"] for rule in group["rules"] if "alert" in rule}


def records() -> list[str]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))
    return [rule["record"] for group in document["groups"] for rule in group["rules"] if "record" in rule]


def test_the_configuration_and_the_rules_are_what_prometheus_reads() -> None:
    assert "SUCCESS" in promtool("check", "config", "prometheus.yml")
    assert f"{len(alerts()) + len(records())} rules found" in promtool("check", "rules", "alerts.yml")


@pytest.mark.parametrize("tests", TESTS)
def test_each_alert_is_raised_by_what_should_raise_it(tests: str) -> None:
    assert "SUCCESS" in promtool("test", "rules", tests)


def test_every_alert_has_a_test_that_raises_it() -> None:
    documents = [yaml.safe_load((FOLDER / name).read_text(encoding="utf-8")) for name in TESTS]
    raised = {
        expected["alertname"]
        for document in documents
        for test in document["tests"]
        for expected in test["alert_rule_test"]
        if expected["exp_alerts"]
    }

    assert raised == set(alerts())


def waited_for(source: str) -> Iterator[str]:
    """The alerts that tests of this source wait to be told are firing: `told("X")`, also by way of a thread."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            called, *given = (call.func, *call.args)
            if given and isinstance(given[0], ast.Attribute):
                called, *given = given
            match called, given:
                case ast.Attribute(attr="told"), [ast.Constant(value=str(name))]:
                    yield name


def test_a_wait_for_the_end_of_an_alert_is_none_for_the_alert() -> None:
    source = """
world.told("A", process="kyc")
asyncio.to_thread(world.told, "B")
[asyncio.to_thread(world.told, "C", "resolved")]
other.method("D")
"""
    assert list(waited_for(source)) == ["A", "B"]


def test_every_alert_is_raised_for_real_by_a_running_system() -> None:
    sources = Path(__file__).parent.glob("test_alerts_*.py")
    raised = {name for source in sources for name in waited_for(source.read_text(encoding="utf-8"))}

    assert raised == set(alerts())


def test_every_alert_says_where_it_is_written_what_to_do() -> None:
    for name, rule in alerts().items():
        page, _, anchor = str(rule["annotations"]["runbook"]).partition("#")
        text = (ROOT / page).read_text(encoding="utf-8")
        headings = {
            re.sub(r"[^a-z0-9 -]", "", line.lower()).strip().replace(" ", "-")
            for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
        }
        assert anchor in headings, (name, headings)
        assert rule["labels"]["severity"] in ("page", "ticket")
